// An instrument for MMCore that is none: DMD, camera, lights, wheel and stages round a world that a test provides.

#include "ModuleInterface.h"
#include "SimCamera.h"
#include "SimDmd.h"
#include "SimMovers.h"

#ifdef _MSC_VER
#define SIM_API extern "C" __declspec(dllexport)
#else
#define SIM_API extern "C" __attribute__((visibility("default")))
#endif

// ------------------------------------------------- for tests

// From now on the rig reports to these functions; null: it plays by itself.
SIM_API void simrig_connect(const SimCallbacks* callbacks) { sim::World::Get().Connect(callbacks); }

// What is to go wrong with a device, by its label; 0 if the text is not understood.
SIM_API int simrig_fail(const char* device, const char* text) { return sim::World::Get().Fail(device, text); }

// How often a device was called so.
SIM_API long simrig_count(const char* device, const char* call) { return sim::World::Get().Count(device, call); }

// Nothing goes wrong, and nothing was counted.
SIM_API void simrig_forget() { sim::World::Get().Forget(); }

// ------------------------------------------------- for MMCore

MODULE_API void InitializeModuleData()
{
   RegisterDevice(sim::Dmd::Name, MM::SLMDevice, "Mirrors with a sequence memory");
   RegisterDevice(sim::Camera::Name, MM::CameraDevice, "Camera");
   RegisterDevice(sim::Switch::LaserName, MM::ShutterDevice, "Laser with a power");
   RegisterDevice(sim::Switch::ShutterName, MM::ShutterDevice, "Shutter");
   RegisterDevice(sim::Wheel::WheelName, MM::StateDevice, "Filter wheel");
   RegisterDevice(sim::Wheel::LampName, MM::StateDevice, "Lamp that is switched by its state");
   RegisterDevice(sim::XYStage::Name, MM::XYStageDevice, "Stage");
   RegisterDevice(sim::ZStage::Name, MM::StageDevice, "Focus");
}

MODULE_API MM::Device* CreateDevice(const char* name)
{
   std::string wanted = name ? name : "";
   if (wanted == sim::Dmd::Name)
      return new sim::Dmd;
   if (wanted == sim::Camera::Name)
      return new sim::Camera;
   if (wanted == sim::Switch::LaserName || wanted == sim::Switch::ShutterName)
      return new sim::Switch(wanted == sim::Switch::LaserName);
   if (wanted == sim::Wheel::WheelName || wanted == sim::Wheel::LampName)
      return new sim::Wheel(wanted == sim::Wheel::LampName);
   if (wanted == sim::XYStage::Name)
      return new sim::XYStage;
   if (wanted == sim::ZStage::Name)
      return new sim::ZStage;
   return nullptr;
}

MODULE_API void DeleteDevice(MM::Device* device) { delete device; }
