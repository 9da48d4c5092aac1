// A mirror array with a sequence memory.

#pragma once

#include "DeviceBase.h"
#include "SimWorld.h"

namespace sim {

class Dmd : public Device<CSLMBase, Dmd>
{
public:
   static constexpr const char* Name = "Dmd";

   Dmd() : Device(Name)
   {
      Number("Rows", rows_, true);
      Number("Columns", columns_, true);
      Number("SequenceMaxLength", longest_, true);
      Number("OnValue", on_value_, true);
   }

   int Initialize() override
   {
      Fallible();
      SIM_TRY(Tell("Initialize"));
      Number("Period-ms", period_ms_);
      Choice("TriggerMode", trigger_, {"External", "Internal"});
      Choice("AtEnd", at_end_, {"Cycle", "Dark"});
      return DEVICE_OK;
   }

   int Shutdown() override
   {
      Tell("Shutdown");
      return DEVICE_OK;
   }

   // ------------------------------------------------- one picture: SetImage loads it, DisplayImage shows it

   int SetImage(unsigned char* pixels) override
   {
      SIM_TRY(Ask("SetImage"));
      return Read(pixels, image_);
   }

   int SetImage(unsigned int*) override { return DEVICE_UNSUPPORTED_DATA_FORMAT; }

   int DisplayImage() override
   {
      if (image_.empty())
         return DEVICE_ERR;
      return Show("DisplayImage", image_, 0);
   }

   int SetPixelsTo(unsigned char intensity) override
   {
      if (intensity != 0 && intensity != on_value_)
         return DEVICE_INVALID_INPUT_PARAM;
      std::vector<uint8_t> all(Mirrors(), intensity != 0);
      return Show("SetPixelsTo", all, intensity == 0 ? -1 : 0);
   }

   int SetPixelsTo(unsigned char, unsigned char, unsigned char) override { return DEVICE_UNSUPPORTED_COMMAND; }
   int SetExposure(double) override { return DEVICE_OK; }
   double GetExposure() override { return 0.0; }
   unsigned GetWidth() override { return static_cast<unsigned>(columns_); }
   unsigned GetHeight() override { return static_cast<unsigned>(rows_); }
   unsigned GetNumberOfComponents() override { return 1; }
   unsigned GetBytesPerPixel() override { return 1; }

   // ------------------------------------------------- sequences

   int IsSLMSequenceable(bool& sequenceable) const override
   {
      sequenceable = longest_ > 0;
      return DEVICE_OK;
   }

   int GetSLMSequenceMaxLength(long& longest) const override
   {
      longest = static_cast<long>(longest_);
      return longest > 0 ? DEVICE_OK : DEVICE_UNSUPPORTED_COMMAND;
   }

   int ClearSLMSequence() override
   {
      SIM_TRY(Tell("ClearSLMSequence"));
      sequence_.clear();
      sent_ = false;
      return DEVICE_OK;
   }

   int AddToSLMSequence(const unsigned char* pixels) override
   {
      SIM_TRY(Ask("AddToSLMSequence"));
      if (sequence_.size() >= longest_)
         return DEVICE_SEQUENCE_TOO_LARGE;
      sequence_.emplace_back();
      return Read(pixels, sequence_.back());
   }

   int AddToSLMSequence(const unsigned int*) override { return DEVICE_UNSUPPORTED_DATA_FORMAT; }

   int SendSLMSequence() override
   {
      SIM_TRY(Ask("SendSLMSequence"));
      SimCallbacks world = World::Get().Callbacks();
      if (world.picture) {
         for (const auto& on : sequence_) {
            int code = world.picture(Label().c_str(), "AddToSLMSequence", on.data(), GetHeight(), GetWidth());
            if (code != DEVICE_OK)
               return code;
         }
         int code = world.told(Label().c_str(), "SendSLMSequence", 0.0, 0.0);
         if (code != DEVICE_OK)
            return code;
      }
      sent_ = true;
      return DEVICE_OK;
   }

   int StartSLMSequence() override
   {
      if (!sent_ || sequence_.empty())
         return DEVICE_ERR;
      double period_ms = trigger_ == "Internal" ? period_ms_ : 0.0;
      SIM_TRY(Tell("StartSLMSequence", period_ms, at_end_ == "Cycle"));
      World::Get().Begin(static_cast<long>(sequence_.size()), period_ms);
      return DEVICE_OK;
   }

   int StopSLMSequence() override
   {
      SIM_TRY(Tell("StopSLMSequence"));
      World::Get().Show(-1);
      return DEVICE_OK;
   }

private:
   std::size_t Mirrors() { return static_cast<std::size_t>(GetWidth()) * GetHeight(); }

   // Only 0 and the value for "on" are understood: what any other would do, no manual says.
   int Read(const unsigned char* pixels, std::vector<uint8_t>& on)
   {
      on.resize(Mirrors());
      for (std::size_t place = 0; place < on.size(); ++place) {
         if (pixels[place] != 0 && pixels[place] != on_value_)
            return DEVICE_INVALID_INPUT_PARAM;
         on[place] = pixels[place] != 0;
      }
      return DEVICE_OK;
   }

   int Show(const char* call, const std::vector<uint8_t>& on, long place)
   {
      SIM_TRY(Ask(call));
      SimCallbacks world = World::Get().Callbacks();
      int code = world.picture ? world.picture(Label().c_str(), call, on.data(), GetHeight(), GetWidth()) : DEVICE_OK;
      if (code == DEVICE_OK)
         World::Get().Show(place);
      return code;
   }

   double rows_ = 96;
   double columns_ = 128;
   double longest_ = 100;
   double on_value_ = 255;
   double period_ms_ = 10.0;
   std::string trigger_ = "External";
   std::string at_end_ = "Cycle";
   std::vector<uint8_t> image_;
   std::vector<std::vector<uint8_t>> sequence_;
   bool sent_ = false;
};

} // namespace sim
