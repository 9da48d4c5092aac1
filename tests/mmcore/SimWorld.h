// What SimRig's devices share: the world that they report to, what is asked to go wrong, and what was called how often.
//
// The world is on the other side of a few C functions, which a test sets. Without it the rig plays by itself: frames
// tell which pattern stood, in real time.

#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "MMDeviceConstants.h"

extern "C" {

// How the camera is to take frames. The window is in unbinned pixels.
struct SimMode {
   long frames;
   double exposure_ms;
   double interval_ms;
   long binning, x, y, width, height;
   long external;
};

// Functions of the world. They return 0, or the error that the device is to give.
struct SimCallbacks {
   // A command came; where a picture belongs to it, that is given, one byte a mirror.
   int (*told)(const char* device, const char* call, double a, double b);
   int (*picture)(const char* device, const char* call, const uint8_t* on, long rows, long columns);
   int (*armed)(const char* device, const SimMode* mode);
   // The next frame, if there is one (SIM_LATER: not yet), its number, and when its exposure began and it is read out,
   // both since the camera was armed.
   int (*frame)(const char* device, uint16_t* pixels, long rows, long columns, long* number, double* began_ms,
                double* ready_ms);
};

}

const int SIM_LATER = -1;

namespace sim {

using Clock = std::chrono::steady_clock;

inline Clock::duration Milliseconds(double ms)
{
   return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(ms));
}

// A call that goes wrong: after so many that go well, so many times (-1: from then on), with this error. 0: nothing
// happens and nobody is told; below 0: it takes so many milliseconds, and then times out.
struct Fault {
   std::string call;
   long after = 0;
   long times = 1;
   int code = DEVICE_ERR;
};

// Shared by all devices of the module.
class World
{
public:
   static World& Get()
   {
      static World world;
      return world;
   }

   void Connect(const SimCallbacks* callbacks)
   {
      std::lock_guard<std::mutex> guard(mutex_);
      callbacks_ = callbacks ? *callbacks : SimCallbacks{};
   }

   SimCallbacks Callbacks()
   {
      std::lock_guard<std::mutex> guard(mutex_);
      return callbacks_;
   }

   // "CALL [AFTER [TIMES [CODE]]]; ...", a call * is any. Empty: nothing goes wrong any more. False: not understood.
   bool Fail(const std::string& device, const std::string& text)
   {
      std::vector<Fault> faults;
      std::istringstream parts(text);
      for (std::string part; std::getline(parts, part, ';');) {
         std::istringstream words(part);
         Fault fault;
         if (!(words >> fault.call))
            return false;
         words >> fault.after && words >> fault.times && words >> fault.code;
         if (!words.eof())
            return false;
         faults.push_back(fault);
      }
      std::lock_guard<std::mutex> guard(mutex_);
      faults_[device] = faults;
      return true;
   }

   // Count the call; the fault that strikes it, if one does.
   bool Struck(const std::string& device, const std::string& call, int& code)
   {
      std::lock_guard<std::mutex> guard(mutex_);
      ++counts_[{device, call}];
      ++counts_[{device, "*"}];
      for (Fault& fault : faults_[device]) {
         if (fault.call != call && fault.call != "*")
            continue;
         if (fault.after > 0) {
            --fault.after;
            continue;
         }
         if (fault.times == 0)
            continue;
         if (fault.times > 0)
            --fault.times;
         code = fault.code;
         return true;
      }
      return false;
   }

   long Count(const std::string& device, const std::string& call)
   {
      std::lock_guard<std::mutex> guard(mutex_);
      return counts_[{device, call}];
   }

   void Forget()
   {
      std::lock_guard<std::mutex> guard(mutex_);
      counts_.clear();
      faults_.clear();
   }

   // ------------------------------------------------- the line between mirrors and camera, when the rig plays by itself

   // A sequence of so many patterns begins; a period of 0: it steps whenever the camera ends an exposure.
   void Begin(long length, double period_ms)
   {
      std::lock_guard<std::mutex> guard(mutex_);
      began_ = Clock::now();
      length_ = length;
      period_ms_ = period_ms;
      shown_ = 0;
   }

   void Show(long place)
   {
      std::lock_guard<std::mutex> guard(mutex_);
      length_ = 0;
      shown_ = place;
   }

   // The mirrors' pulse of that number: false if there is none.
   bool Pulse(long number, Clock::time_point& at)
   {
      std::lock_guard<std::mutex> guard(mutex_);
      if (length_ == 0 || period_ms_ == 0)
         return false;
      at = began_ + Milliseconds(static_cast<double>(number) * period_ms_);
      return true;
   }

   // The camera ends an exposure: the place in the sequence, or -1, that it has seen.
   long ExposureEnded(long number)
   {
      std::lock_guard<std::mutex> guard(mutex_);
      if (length_ == 0)
         return shown_;
      if (period_ms_ > 0)
         return number % length_;
      return shown_++ % length_;
   }

private:
   std::mutex mutex_;
   SimCallbacks callbacks_{};
   std::map<std::string, std::vector<Fault>> faults_;
   std::map<std::pair<std::string, std::string>, long> counts_;
   Clock::time_point began_{};
   long length_ = 0;
   double period_ms_ = 0.0;
   long shown_ = -1;
};

// Whether a device goes on with a call, or returns at once.
struct Answer {
   bool goes_on;
   int code;
};

// What all devices do with a call before they obey it.
template <template <class> class Base, class Self>
class Device : public Base<Self>
{
public:
   bool Busy() override
   {
      int code;
      return World::Get().Struck(Label(), "Busy", code);
   }

protected:
   explicit Device(const char* name) : name_(name) { this->InitializeDefaultErrorMessages(); }

   void GetName(char* name) const override { CDeviceUtils::CopyLimitedString(name, name_); }

   std::string Label() const
   {
      char label[MM::MaxStrLength];
      this->GetLabel(label);
      return label;
   }

   Answer Ask(const char* call)
   {
      int code = DEVICE_OK;
      if (!World::Get().Struck(Label(), call, code))
         return {true, DEVICE_OK};
      if (code >= 0)
         return {false, code};
      std::this_thread::sleep_for(std::chrono::milliseconds(-code));
      return {false, DEVICE_SERIAL_TIMEOUT};
   }

   // The same, and the world hears of it.
   Answer Tell(const char* call, double a = 0.0, double b = 0.0)
   {
      Answer answer = Ask(call);
      auto told = World::Get().Callbacks().told;
      if (!answer.goes_on || !told)
         return answer;
      answer.code = told(Label().c_str(), call, a, b);
      answer.goes_on = answer.code == DEVICE_OK;
      return answer;
   }

   // A property that holds a number; the world hears of it under the name of the property.
   void Number(const char* name, double& value, bool before_start = false)
   {
      auto action = new MM::ActionLambda([this, name, &value](MM::PropertyBase* property, MM::ActionType type) {
         if (type == MM::BeforeGet)
            property->Set(value);
         else if (type == MM::AfterSet) {
            double wanted;
            property->Get(wanted);
            Answer answer = Tell(name, wanted);
            if (!answer.goes_on)
               return answer.code;
            value = wanted;
         }
         return DEVICE_OK;
      });
      this->CreateProperty(name, std::to_string(value).c_str(), MM::Float, false, action, before_start);
   }

   // A property that is one of several words.
   void Choice(const char* name, std::string& value, const std::vector<std::string>& words)
   {
      auto action = new MM::ActionLambda([this, name, &value](MM::PropertyBase* property, MM::ActionType type) {
         if (type == MM::BeforeGet)
            property->Set(value.c_str());
         else if (type == MM::AfterSet) {
            Answer answer = Ask(name);
            if (!answer.goes_on)
               return answer.code;
            property->Get(value);
         }
         return DEVICE_OK;
      });
      this->CreateProperty(name, value.c_str(), MM::String, false, action);
      this->SetAllowedValues(name, const_cast<std::vector<std::string>&>(words));
   }

   // What is to go wrong: see World::Fail.
   void Fallible()
   {
      auto action = new MM::ActionLambda([this](MM::PropertyBase* property, MM::ActionType type) {
         std::string text;
         property->Get(text);
         bool understood = type != MM::AfterSet || World::Get().Fail(Label(), text);
         return understood ? DEVICE_OK : DEVICE_INVALID_PROPERTY_VALUE;
      });
      this->CreateProperty("Fail", "", MM::String, false, action);
   }

private:
   const char* name_;
};

// Returns from a device's function if the call is not to be obeyed.
#define SIM_TRY(call)                   \
   do {                                 \
      sim::Answer sim_answer = call;    \
      if (!sim_answer.goes_on)          \
         return sim_answer.code;        \
   } while (false)

} // namespace sim
