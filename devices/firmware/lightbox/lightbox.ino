// A box that gates a light, for an Arduino Uno or Nano (ATmega328P) or a Raspberry Pi Pico (core of Earle Philhower).
// What it obeys, and how it is wired, stands in ../README.md; what it does stands in box.h.
#include "box.h"

#if defined(ARDUINO_ARCH_AVR)
#include <avr/wdt.h>
#endif

const uint8_t GATE = 8;   // to the TTL input of the light, with 10 kOhm to ground: low while nobody drives it
const uint8_t POWER = 9;  // 16 kHz, behind 1 kOhm and 1 uF to the analogue input of the light
const uint8_t LOCK = 7;   // to ground through the contacts of the interlock: open is high
const uint8_t MOST = 31;  // characters of a line

Box box;
char heard[MOST + 1];
uint8_t length = 0;
bool too_long = false;

bool closed() { return digitalRead(LOCK) == LOW; }

void show() {
  digitalWrite(GATE, box.lit ? HIGH : LOW);
#if defined(ARDUINO_ARCH_AVR)
  OCR1A = box.power;
  if (box.power > 0) {
    TCCR1A |= _BV(COM1A1);
  } else {  // the timer alone would leave a spike
    TCCR1A &= ~_BV(COM1A1);
  }
#else
  analogWrite(POWER, box.power);
#endif
}

// One character of what comes; a line that is too long is answered as a whole.
void take(char character) {
  if (character == '\r') return;
  if (character != '\n') {
    too_long = too_long || length == MOST;
    if (!too_long) heard[length++] = character;
    return;
  }
  heard[too_long ? 0 : length] = '\0';
  const char *answer = box.hear(heard, millis(), closed());
  show();  // before it is told
  Serial.print(answer);
  Serial.print("\r\n");
  length = 0;
  too_long = false;
}

void setup() {
  digitalWrite(GATE, LOW);
  pinMode(GATE, OUTPUT);
  digitalWrite(POWER, LOW);
  pinMode(POWER, OUTPUT);
  pinMode(LOCK, INPUT_PULLUP);
#if defined(ARDUINO_ARCH_AVR)
  TCCR1A = _BV(WGM11);
  TCCR1B = _BV(WGM13) | _BV(WGM12) | _BV(CS10);
  ICR1 = Box::FULL;
  wdt_enable(WDTO_120MS);
#else
  analogWriteFreq(16000);
  analogWriteRange(Box::FULL);
  rp2040.wdt_begin(120);
#endif
  Serial.begin(115200);
}

// A board that hangs is reset by its own watchdog, and is dark.
void loop() {
#if defined(ARDUINO_ARCH_AVR)
  wdt_reset();
#else
  rp2040.wdt_reset();
#endif
  box.look(millis(), closed());
  show();
  if (Serial.available() > 0) take(static_cast<char>(Serial.read()));
}
