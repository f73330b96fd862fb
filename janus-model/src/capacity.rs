//! What a device can hold, where its interface tells.

#[cfg(feature = "gpu")]
use burn::backend::DispatchDevice;
use burn::tensor::Device;

/// The most bytes that one tensor may take on a device, where there is such a limit.
pub fn largest_tensor(device: &Device) -> Option<u64> {
    match device.clone().inner().as_dispatch() {
        #[cfg(feature = "gpu")]
        DispatchDevice::Cube(device) => match device.runtime() {
            burn_cubecl::cubecl::RuntimeId::Cuda => None,
            _ => Some(device.client().properties().memory.max_page_size),
        },
        _ => None,
    }
}

/// Bytes of memory that a graphics card may be asked for in all, where its interface tells.
pub fn device_memory(device: &Device) -> Option<u64> {
    match device.clone().inner().as_dispatch() {
        #[cfg(feature = "gpu")]
        DispatchDevice::Cube(device) => device.client().properties().memory.max_memory(),
        _ => None,
    }
}
