// What the box does, without a board: the same lines run on a computer, where they are tested.
//
// A light that it gates is on only while somebody speaks with it: a quarter of a second without a command that it
// understands, and the light is off. It is off as well when the time that ON allowed is over, when the interlock opens,
// and from power-up until the first ON.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <string.h>

class Box {
 public:
  static const uint32_t SILENCE_MS = 250;
  static const uint32_t LONGEST_MS = 60000;
  static const uint32_t FULL = 1000;

  bool lit = false;
  uint16_t power = 0;  // in thousandths of what the light can give

  // To be called all the time: puts off what must not be on any more.
  void look(uint32_t now_ms, bool closed) {
    if (!closed || now_ms - heard_ms_ >= SILENCE_MS || now_ms - lit_ms_ >= longest_ms_) lit = false;
  }

  // Obeys a line that has come, without its end. The answer holds until the next one.
  const char *hear(const char *line, uint32_t now_ms, bool closed) {
    look(now_ms, closed);
    const char *answer = obey(line, now_ms, closed);
    if (strcmp(answer, "ERR") != 0) heard_ms_ = now_ms;  // noise is no sign of life
    return answer;
  }

 private:
  uint32_t heard_ms_ = 0;
  uint32_t lit_ms_ = 0;
  uint32_t longest_ms_ = 0;
  char answer_[8] = "";

  const char *obey(const char *line, uint32_t now_ms, bool closed) {
    uint32_t value = 0;
    if (strcmp(line, "OFF") == 0) {
      lit = false;
    } else if (number(line, "ON ", LONGEST_MS, &value)) {
      if (!closed) return "OPEN";
      lit = true;
      lit_ms_ = now_ms;
      longest_ms_ = value;
    } else if (number(line, "POWER ", FULL, &value)) {
      power = static_cast<uint16_t>(value);
    } else if (strcmp(line, "POWER?") == 0) {
      snprintf(answer_, sizeof answer_, "%u", static_cast<unsigned>(power));
      return answer_;
    } else if (strcmp(line, "LIT?") == 0) {
      return lit ? "1" : "0";
    } else if (strcmp(line, "LOCK?") == 0) {
      return closed ? "1" : "0";
    } else if (strcmp(line, "ID?") == 0) {
      return "dmu-hw lightbox 1";
    } else if (strcmp(line, "BEAT") != 0) {
      return "ERR";
    }
    return "OK";
  }

  // A command with a whole number of one to five digits that is not too large.
  static bool number(const char *line, const char *command, uint32_t most, uint32_t *value) {
    const size_t begins = strlen(command);
    const size_t digits = strlen(line) - begins;
    if (strncmp(line, command, begins) != 0 || digits < 1 || digits > 5) return false;
    for (const char *digit = line + begins; *digit != '\0'; digit++) {
      if (*digit < '0' || *digit > '9') return false;
      *value = 10 * *value + static_cast<uint32_t>(*digit - '0');
    }
    return *value <= most;
  }
};
