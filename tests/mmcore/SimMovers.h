// Lights, shutters, wheels and stages.

#pragma once

#include "DeviceBase.h"
#include "SimWorld.h"

namespace sim {

// A laser with a power, or a shutter, which has none.
class Switch : public Device<CShutterBase, Switch>
{
public:
   static constexpr const char* LaserName = "Laser";
   static constexpr const char* ShutterName = "Shutter";

   explicit Switch(bool laser) : Device(laser ? LaserName : ShutterName), laser_(laser) {}

   int Initialize() override
   {
      Fallible();
      SIM_TRY(Tell("Initialize"));
      if (laser_) {
         Number("Power-mW", power_mw_);
         SetPropertyLimits("Power-mW", 0.0, 50.0);
      }
      return DEVICE_OK;
   }

   int Shutdown() override
   {
      open_ = false;
      Tell("Shutdown");
      return DEVICE_OK;
   }

   int SetOpen(bool open) override
   {
      SIM_TRY(Ask(open ? "Open" : "Close"));
      SIM_TRY(Tell("SetOpen", open));
      open_ = open;
      return DEVICE_OK;
   }

   int GetOpen(bool& open) override
   {
      SIM_TRY(Ask("GetOpen"));
      open = open_;
      return DEVICE_OK;
   }

   int Fire(double) override { return DEVICE_UNSUPPORTED_COMMAND; }

private:
   bool laser_;
   double power_mw_ = 0.0;
   bool open_ = false;
};

// A filter wheel of four places, or a lamp: off and on.
class Wheel : public Device<CStateDeviceBase, Wheel>
{
public:
   static constexpr const char* WheelName = "Wheel";
   static constexpr const char* LampName = "Lamp";

   explicit Wheel(bool lamp) : Device(lamp ? LampName : WheelName), places_(lamp ? 2 : 4) {}

   int Initialize() override
   {
      Fallible();
      SIM_TRY(Tell("Initialize"));
      auto state = new MM::ActionLambda([this](MM::PropertyBase* property, MM::ActionType type) {
         if (type == MM::BeforeGet) {
            SIM_TRY(Ask("GetState"));
            property->Set(place_);
         }
         else if (type == MM::AfterSet) {
            long wanted;
            property->Get(wanted);
            SIM_TRY(Tell("SetState", static_cast<double>(wanted)));
            place_ = wanted;
         }
         return DEVICE_OK;
      });
      CreateProperty(MM::g_Keyword_State, "0", MM::Integer, false, state);
      CreateProperty(MM::g_Keyword_Label, "", MM::String, false, new CPropertyAction(this, &CStateBase::OnLabel));
      for (long place = 0; place < places_; ++place) {
         AddAllowedValue(MM::g_Keyword_State, std::to_string(place).c_str());
         SetPositionLabel(place, ("Position-" + std::to_string(place)).c_str());
      }
      return DEVICE_OK;
   }

   int Shutdown() override
   {
      Tell("Shutdown");
      return DEVICE_OK;
   }

   unsigned long GetNumberOfPositions() const override { return static_cast<unsigned long>(places_); }

private:
   long places_;
   long place_ = 0;
};

class XYStage : public Device<CXYStageBase, XYStage>
{
public:
   static constexpr const char* Name = "XY";

   XYStage() : Device(Name) {}

   int Initialize() override
   {
      Fallible();
      SIM_TRY(Tell("Initialize"));
      return DEVICE_OK;
   }

   int Shutdown() override
   {
      Tell("Shutdown");
      return DEVICE_OK;
   }

   // No steps: positions are taken as they are given, to the last bit.
   int SetPositionUm(double x_um, double y_um) override
   {
      SIM_TRY(Tell("SetPosition", x_um, y_um));
      x_um_ = x_um;
      y_um_ = y_um;
      return DEVICE_OK;
   }

   int GetPositionUm(double& x_um, double& y_um) override
   {
      SIM_TRY(Ask("GetPosition"));
      x_um = x_um_;
      y_um = y_um_;
      return DEVICE_OK;
   }

   int SetPositionSteps(long, long) override { return DEVICE_UNSUPPORTED_COMMAND; }
   int GetPositionSteps(long&, long&) override { return DEVICE_UNSUPPORTED_COMMAND; }

   int GetLimitsUm(double& x_low, double& x_high, double& y_low, double& y_high) override
   {
      x_low = -50000.0;
      x_high = 50000.0;
      y_low = -35000.0;
      y_high = 35000.0;
      return DEVICE_OK;
   }

   int Home() override { return DEVICE_UNSUPPORTED_COMMAND; }
   int Stop() override { return DEVICE_OK; }
   int SetOrigin() override { return DEVICE_UNSUPPORTED_COMMAND; }
   int GetStepLimits(long&, long&, long&, long&) override { return DEVICE_UNSUPPORTED_COMMAND; }
   double GetStepSizeXUm() override { return 1.0; }
   double GetStepSizeYUm() override { return 1.0; }
   int IsXYStageSequenceable(bool& sequenceable) const override
   {
      sequenceable = false;
      return DEVICE_OK;
   }

private:
   double x_um_ = 0.0;
   double y_um_ = 0.0;
};

class ZStage : public Device<CStageBase, ZStage>
{
public:
   static constexpr const char* Name = "Z";

   ZStage() : Device(Name) {}

   int Initialize() override
   {
      Fallible();
      SIM_TRY(Tell("Initialize"));
      return DEVICE_OK;
   }

   int Shutdown() override
   {
      Tell("Shutdown");
      return DEVICE_OK;
   }

   int SetPositionUm(double z_um) override
   {
      SIM_TRY(Tell("SetPosition", z_um));
      z_um_ = z_um;
      return DEVICE_OK;
   }

   int GetPositionUm(double& z_um) override
   {
      SIM_TRY(Ask("GetPosition"));
      z_um = z_um_;
      return DEVICE_OK;
   }

   int SetPositionSteps(long) override { return DEVICE_UNSUPPORTED_COMMAND; }
   int GetPositionSteps(long&) override { return DEVICE_UNSUPPORTED_COMMAND; }
   int SetOrigin() override { return DEVICE_UNSUPPORTED_COMMAND; }
   int GetLimits(double& low, double& high) override
   {
      low = -500.0;
      high = 500.0;
      return DEVICE_OK;
   }
   bool IsContinuousFocusDrive() const override { return false; }
   int IsStageSequenceable(bool& sequenceable) const override
   {
      sequenceable = false;
      return DEVICE_OK;
   }

private:
   double z_um_ = 0.0;
};

} // namespace sim
