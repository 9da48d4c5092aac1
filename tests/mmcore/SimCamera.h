// A camera with window, binning, triggers, and a thread that fills MMCore's buffer.

#pragma once

#include <condition_variable>
#include <cstring>

#include "CameraImageMetadata.h"
#include "DeviceBase.h"
#include "SimWorld.h"

namespace sim {

class Camera : public Device<CCameraBase, Camera>
{
public:
   static constexpr const char* Name = "Camera";

   Camera() : Device(Name)
   {
      Number("Rows", rows_, true);
      Number("Columns", columns_, true);
   }

   ~Camera() override { Halt(); }

   int Initialize() override
   {
      Fallible();
      SIM_TRY(Tell("Initialize"));
      Number("Interval-ms", interval_ms_); // least time from frame to frame
      Number("Readout-ms", readout_ms_);   // when the rig plays by itself
      Choice("Trigger", trigger_, {"Internal", "External"});
      Choice("TimeStamps", stamps_, {"Camera", "Core"}); // who says when a frame was taken
      Choice("PixelType", pixel_type_, {"16bit", "8bit"});
      auto binning = new MM::ActionLambda([this](MM::PropertyBase* property, MM::ActionType type) {
         long wanted = binning_;
         if (type == MM::AfterSet) {
            property->Get(wanted);
            return SetBinning(static_cast<int>(wanted));
         }
         property->Set(wanted);
         return DEVICE_OK;
      });
      CreateProperty(MM::g_Keyword_Binning, "1", MM::Integer, false, binning);
      for (const char* side : {"1", "2", "4", "8", "16", "32", "64"})
         AddAllowedValue(MM::g_Keyword_Binning, side);
      return ClearROI();
   }

   int Shutdown() override
   {
      Halt();
      Tell("Shutdown");
      return DEVICE_OK;
   }

   // ------------------------------------------------- shape

   unsigned GetImageWidth() const override { return static_cast<unsigned>(width_); }
   unsigned GetImageHeight() const override { return static_cast<unsigned>(height_); }
   unsigned GetImageBytesPerPixel() const override { return pixel_type_ == "8bit" ? 1 : 2; }
   unsigned GetBitDepth() const override { return 8 * GetImageBytesPerPixel(); }
   long GetImageBufferSize() const override { return width_ * height_ * static_cast<long>(GetImageBytesPerPixel()); }
   int GetBinning() const override { return static_cast<int>(binning_); }
   int IsExposureSequenceable(bool& sequenceable) const override
   {
      sequenceable = false;
      return DEVICE_OK;
   }

   // As with most cameras, another binning means the whole chip.
   int SetBinning(int binning) override
   {
      if (IsCapturing())
         return DEVICE_CAMERA_BUSY_ACQUIRING;
      SIM_TRY(Ask("SetBinning"));
      binning_ = binning;
      return Window(0, 0, static_cast<long>(columns_) / binning_, static_cast<long>(rows_) / binning_);
   }

   int SetROI(unsigned x, unsigned y, unsigned width, unsigned height) override
   {
      if (IsCapturing())
         return DEVICE_CAMERA_BUSY_ACQUIRING;
      SIM_TRY(Ask("SetROI"));
      return Window(x, y, width, height);
   }

   int GetROI(unsigned& x, unsigned& y, unsigned& width, unsigned& height) override
   {
      x = static_cast<unsigned>(x_);
      y = static_cast<unsigned>(y_);
      width = GetImageWidth();
      height = GetImageHeight();
      return DEVICE_OK;
   }

   int ClearROI() override
   {
      return Window(0, 0, static_cast<long>(columns_) / binning_, static_cast<long>(rows_) / binning_);
   }

   void SetExposure(double exposure_ms) override
   {
      if (Ask("SetExposure").goes_on)
         exposure_ms_ = exposure_ms;
   }

   double GetExposure() const override { return exposure_ms_; }

   // ------------------------------------------------- one frame

   int SnapImage() override
   {
      if (IsCapturing())
         return DEVICE_CAMERA_BUSY_ACQUIRING;
      SIM_TRY(Ask("SnapImage"));
      int code = Arm(1);
      if (code != DEVICE_OK)
         return code;
      stopping_ = false;
      long number;
      double began_ms;
      return Next(0, Clock::now(), number, began_ms) ? DEVICE_OK : DEVICE_SNAP_IMAGE_FAILED;
   }

   const unsigned char* GetImageBuffer() override
   {
      Pack();
      return bytes_.data();
   }

   // ------------------------------------------------- sequences

   int StartSequenceAcquisition(double unused) override { return StartSequenceAcquisition(-1, unused, false); }

   int StartSequenceAcquisition(long frames, double, bool) override
   {
      if (IsCapturing())
         return DEVICE_CAMERA_BUSY_ACQUIRING;
      Halt();
      SIM_TRY(Ask("StartSequenceAcquisition"));
      int code = GetCoreCallback()->PrepareForAcq(this);
      if (code == DEVICE_OK)
         code = Arm(frames);
      if (code != DEVICE_OK)
         return code;
      stopping_ = false;
      capturing_ = true;
      thread_ = std::thread([this, frames, began = Clock::now()] { Run(frames, began); });
      return DEVICE_OK;
   }

   int StopSequenceAcquisition() override
   {
      Answer answer = Tell("StopSequenceAcquisition");
      Halt();
      return answer.code;
   }

   bool IsCapturing() override { return capturing_; }

private:
   int Window(long x, long y, long width, long height)
   {
      bool fits = x >= 0 && y >= 0 && width > 0 && height > 0 && (x + width) * binning_ <= columns_ &&
                  (y + height) * binning_ <= rows_;
      if (!fits)
         return DEVICE_INVALID_INPUT_PARAM;
      x_ = x;
      y_ = y;
      width_ = width;
      height_ = height;
      pixels_.assign(static_cast<std::size_t>(width) * height, 1000);
      return DEVICE_OK;
   }

   int Arm(long frames)
   {
      SimMode mode{frames, exposure_ms_, interval_ms_, binning_, x_ * binning_, y_ * binning_, width_ * binning_,
                   height_ * binning_, trigger_ == "External"};
      auto armed = World::Get().Callbacks().armed;
      return armed ? armed(Label().c_str(), &mode) : DEVICE_OK;
   }

   void Halt()
   {
      {
         std::lock_guard<std::mutex> guard(mutex_);
         stopping_ = true;
      }
      wake_.notify_all();
      if (thread_.joinable())
         thread_.join();
   }

   // Until then, or until somebody stops it: false.
   bool Wait(Clock::time_point until)
   {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait_until(lock, until, [this] { return stopping_.load(); });
      return !stopping_;
   }

   // The thread that takes frames; it ends where the buffer is full, and where the camera dies.
   void Run(long frames, Clock::time_point began)
   {
      long number = -1;
      while (number + 1 < frames || frames < 0) {
         double began_ms;
         if (!Next(number + 1, began, number, began_ms))
            break;
         if (!Ask("Deliver").goes_on)
            continue; // dropped, and counted
         MM::CameraImageMetadata tags;
         tags.AddTag("FrameNumber", number); // MMCore's own ImageNumber does not know of frames that never came
         if (stamps_ == "Camera")
            tags.AddTag(MM::g_Keyword_Elapsed_Time_ms, std::to_string(began_ms));
         Pack();
         int code = GetCoreCallback()->InsertImage(this, bytes_.data(), GetImageWidth(), GetImageHeight(),
                                                   GetImageBytesPerPixel(), tags.Serialize());
         if (code != DEVICE_OK)
            break;
      }
      GetCoreCallback()->AcqFinished(this, DEVICE_OK);
      capturing_ = false;
   }

   // Wait for the next frame, from the world or by itself. False: there will be none.
   bool Next(long wanted, Clock::time_point began, long& number, double& began_ms)
   {
      if (!Ask("Expose").goes_on)
         return false;
      auto frame = World::Get().Callbacks().frame;
      if (!frame)
         return ByItself(wanted, began, number, began_ms);
      double ready_ms = 0.0;
      int code = SIM_LATER;
      while (code == SIM_LATER) {
         code = frame(Label().c_str(), pixels_.data(), height_, width_, &number, &began_ms, &ready_ms);
         if (code == SIM_LATER && !Wait(Clock::now() + Milliseconds(1.0)))
            return false;
      }
      return code == DEVICE_OK && Wait(began + Milliseconds(ready_ms));
   }

   // In the first pixels: the place in the sequence, the number, and a count that no other frame has.
   bool ByItself(long wanted, Clock::time_point began, long& number, double& began_ms)
   {
      Clock::time_point start = wanted == 0 ? began : next_;
      if (trigger_ == "External") {
         Clock::time_point pulse;
         while (!World::Get().Pulse(wanted, pulse))
            if (!Wait(Clock::now() + Milliseconds(1.0)))
               return false;
         start = std::max(start, pulse);
      }
      Clock::time_point ready = start + Milliseconds(exposure_ms_ + readout_ms_);
      next_ = std::max(ready, start + Milliseconds(interval_ms_));
      number = wanted;
      began_ms = std::chrono::duration<double, std::milli>(start - began).count();
      if (!Wait(ready))
         return false;
      long place = World::Get().ExposureEnded(number);
      ++exposures_;
      uint16_t told[] = {static_cast<uint16_t>(place + 1), static_cast<uint16_t>(number),
                         static_cast<uint16_t>(exposures_), static_cast<uint16_t>(exposures_ >> 16)};
      std::copy_n(told, std::min<std::size_t>(4, pixels_.size()), pixels_.begin());
      return true;
   }

   void Pack()
   {
      bytes_.resize(static_cast<std::size_t>(GetImageBufferSize()));
      if (GetImageBytesPerPixel() == 2) {
         std::memcpy(bytes_.data(), pixels_.data(), bytes_.size());
         return;
      }
      for (std::size_t place = 0; place < bytes_.size(); ++place)
         bytes_[place] = static_cast<unsigned char>(pixels_[place] >> 8);
   }

   double rows_ = 64;
   double columns_ = 64;
   double exposure_ms_ = 10.0;
   double interval_ms_ = 0.0;
   double readout_ms_ = 0.0;
   long binning_ = 1;
   long exposures_ = 0;
   long x_ = 0, y_ = 0, width_ = 64, height_ = 64;
   std::string trigger_ = "Internal";
   std::string stamps_ = "Camera";
   std::string pixel_type_ = "16bit";
   std::vector<uint16_t> pixels_;
   std::vector<unsigned char> bytes_;
   Clock::time_point next_{};
   std::thread thread_;
   std::mutex mutex_;
   std::condition_variable wake_;
   std::atomic<bool> stopping_{false};
   std::atomic<bool> capturing_{false};
};

} // namespace sim
