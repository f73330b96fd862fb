//! Which device to compute on: chosen once per process, never by Burn's default.
//!
//! Burn's default device is the first backend compiled in and silently accepts a software
//! adapter. Here devices are listed before one is used, listing is guarded against the panics of
//! absent drivers, and a software adapter is used only when asked for by name.

use std::ffi::OsStr;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use burn::tensor::{DType, Device};
use janus_infer::memory::Place;
use janus_model::JanusConfig;
use janus_model::capacity::{device_memory, largest_tensor};
use janus_model::ops::Products;
use janus_model::precision::{Family, Precision};
use janus_model::tables::table_bytes;

use crate::machine::Memory;
use crate::report::{Exit, Failure};
use crate::units::WeightType;

/// A way to reach devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Cuda,
    Metal,
    Vulkan,
    /// wgpu on whichever interface it picks: DX12, Vulkan, Metal or OpenGL.
    WebGpu,
    Cpu,
    NdArray,
}

impl Backend {
    /// In the order `auto` prefers them. The last one is for tests and never chosen.
    pub const ALL: [Self; 6] =
        [Self::Cuda, Self::Metal, Self::Vulkan, Self::WebGpu, Self::Cpu, Self::NdArray];

    /// As typed after `--device`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
            Self::WebGpu => "webgpu",
            Self::Cpu => "cpu",
            Self::NdArray => "ndarray",
        }
    }

    /// Whether this program was built with it.
    pub fn compiled(self) -> bool {
        match self {
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Vulkan => cfg!(feature = "wgpu"),
            Self::WebGpu => cfg!(any(feature = "wgpu", feature = "wgpu-parity")),
            Self::Cpu => cfg!(feature = "cpu"),
            Self::NdArray => cfg!(feature = "ndarray"),
        }
    }

    /// The cargo feature that brings it.
    fn feature(self) -> &'static str {
        match self {
            Self::Vulkan | Self::WebGpu => "wgpu",
            other => other.name(),
        }
    }

    /// Burn's word, for `BURN_DEVICE`.
    fn burn_name(self) -> &'static str {
        match self {
            Self::Cpu => "flex",
            Self::WebGpu => "wgpu",
            other => other.name(),
        }
    }

    /// Every device it reaches. Drivers that are absent or panic give none.
    pub fn devices(self) -> Vec<Found> {
        let list = quietly(|| self.enumerate()).unwrap_or_default();
        let describe = |(index, device)| quietly(|| Found::new(self, index, device));
        list.into_iter().enumerate().filter_map(describe).collect()
    }

    fn enumerate(self) -> Vec<Device> {
        #[allow(unused_imports)]
        use burn::tensor::DeviceType;
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::enumerate(DeviceType::Cuda).into_vec(),
            #[cfg(feature = "metal")]
            Self::Metal => Device::enumerate(DeviceType::Metal).into_vec(),
            #[cfg(feature = "wgpu")]
            Self::Vulkan => Device::enumerate(DeviceType::Vulkan).into_vec(),
            #[cfg(any(feature = "wgpu", feature = "wgpu-parity"))]
            Self::WebGpu => Device::enumerate(DeviceType::Wgpu).into_vec(),
            #[cfg(feature = "cpu")]
            Self::Cpu => vec![Device::flex()],
            #[cfg(feature = "ndarray")]
            #[allow(deprecated)] // kept as a second opinion
            Self::NdArray => vec![Device::ndarray()],
            #[allow(unreachable_patterns)]
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A device that is there.
#[derive(Clone, Debug)]
pub struct Found {
    pub backend: Backend,
    /// Position among the devices of its backend.
    pub index: usize,
    /// As it calls itself.
    pub name: String,
    /// A program that imitates a graphics card.
    pub software: bool,
    pub device: Device,
}

impl Found {
    fn new(backend: Backend, index: usize, device: Device) -> Self {
        let (name, software) = match backend {
            Backend::Cpu => ("processor, Burn Flex".into(), false),
            Backend::NdArray => ("processor, ndarray (f32 only, for comparison)".into(), false),
            _ => identity(&device),
        };
        Self { backend, index, name, software, device }
    }

    /// What to type after `--device` to get this one.
    pub fn id(&self) -> String {
        match self.backend {
            Backend::Cpu | Backend::NdArray => self.backend.to_string(),
            backend => format!("{backend}:{}", self.index),
        }
    }

    /// Formats that weights can be kept in, best known first.
    pub fn dtypes(&self) -> Vec<WeightType> {
        WeightType::ALL.into_iter().filter(|wish| self.precision(Some(*wish)).is_some()).collect()
    }

    /// Formats used for the published checkpoints (bf16) when nothing is asked for.
    pub fn precision(&self, wish: Option<WeightType>) -> Option<Precision> {
        let supports = |dtype| self.device.supports_dtype(dtype);
        let family = Family::of(&self.device);
        let dtype = wish.and_then(WeightType::dtype);
        let packed = wish.and_then(WeightType::packed);
        let choose =
            || Precision::choose(family, DType::BF16, dtype, supports)?.with_packed(family, packed);
        // bf16 may be kept either way: exact, as it is where nobody asks, takes more memory.
        let products = packed.map_or(Products::F32, |bits| WeightType::Packed(bits).products());
        quietly(choose).and_then(Result::ok).map(|precision| precision.with_products(products))
    }

    /// How a model is kept here: for forecasts of memory. `None` where the format cannot be used.
    pub fn place(
        &self,
        config: &JanusConfig,
        file: DType,
        wish: Option<WeightType>,
    ) -> Option<Place> {
        let precision = self.precision(wish)?;
        let bytes = table_bytes(&config.language, precision.weights);
        let tables_on_host = largest_tensor(&self.device).is_some_and(|limit| bytes > limit);
        Some(Place { family: Family::of(&self.device), precision, file, tables_on_host })
    }

    /// Bytes of memory that a model may take here, where that is known.
    pub fn memory(&self) -> Option<u64> {
        match self.backend {
            Backend::Cpu | Backend::NdArray => Some(Memory::now().available),
            _ => device_memory(&self.device),
        }
    }

    /// Whether `auto` may take it.
    pub fn is_automatic(&self) -> bool {
        !self.software && self.backend != Backend::NdArray
    }
}

#[cfg(any(feature = "cuda", feature = "wgpu", feature = "wgpu-parity"))]
fn identity(device: &Device) -> (String, bool) {
    device.identity().map_or_else(
        || (String::from("unnamed"), false),
        |identity| (identity.name, identity.physical.is_none()),
    )
}

#[cfg(not(any(feature = "cuda", feature = "wgpu", feature = "wgpu-parity")))]
fn identity(_: &Device) -> (String, bool) {
    (String::from("unnamed"), false)
}

/// What was typed after `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best there is.
    Auto,
    /// This one; the first of its backend where no number was given.
    Fixed(Backend, Option<usize>),
}

impl DeviceChoice {
    /// For `--help`.
    pub const HELP: &str = "Show only this device, or fail if it cannot be used.\n\n\
        auto, cpu, cuda[:N], vulkan[:N], metal[:N], webgpu[:N] (also: wgpu) or ndarray. \
        auto prefers CUDA, Metal, Vulkan, other graphics cards, then the processor; it never takes \
        a software imitation of a graphics card.";

    /// Finds the device.
    ///
    /// # Errors
    /// It is not part of this build, or not of this machine.
    pub fn open(self) -> Result<Found, Failure> {
        match self {
            Self::Auto => {
                pin("flex");
                let mut all = Backend::ALL.into_iter().flat_map(Backend::devices);
                all.find(Found::is_automatic).ok_or_else(|| {
                    Failure::new(Exit::Usage, "no device that janus can compute on was found")
                        .hint("build with the feature `cpu`, or name a device: see `janus devices`")
                })
            }
            Self::Fixed(backend, index) => {
                if !backend.compiled() {
                    return Err(not_compiled(backend));
                }
                pin(backend.burn_name());
                let devices = backend.devices();
                let count = devices.len();
                let wanted = index.unwrap_or(0);
                devices.into_iter().nth(wanted).ok_or_else(|| absent(backend, index, count))
            }
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (name, index) = match lower.split_once(':') {
            None => (lower.as_str(), None),
            Some((name, digits)) => {
                let index =
                    digits.parse().map_err(|_| format!("{digits:?} is no device number"))?;
                (name, Some(index))
            }
        };
        let name = if name == "wgpu" { "webgpu" } else { name };
        if name == "auto" && index.is_none() {
            return Ok(Self::Auto);
        }
        let known = Backend::ALL.into_iter().find(|backend| backend.name() == name);
        match (known, index) {
            (Some(Backend::Cpu | Backend::NdArray), Some(_)) => {
                Err(format!("{name} takes no number: there is one processor"))
            }
            (Some(backend), index) => Ok(Self::Fixed(backend, index)),
            (None, _) => Err(
                "choose auto, cpu, cuda, vulkan, metal, webgpu or ndarray; a number may follow, \
                     as in cuda:1"
                    .into(),
            ),
        }
    }
}

fn not_compiled(backend: Backend) -> Failure {
    let with: Vec<_> =
        Backend::ALL.into_iter().filter(|b| b.compiled()).map(Backend::name).collect();
    let feature = backend.feature();
    Failure::new(
        Exit::Usage,
        format!("this janus was built without {backend}; it has {}", with.join(", ")),
    )
    .hint(format!(
        "install one built with the cargo feature `{feature}`, or choose another --device"
    ))
}

fn absent(backend: Backend, index: Option<usize>, count: usize) -> Failure {
    let message = match (count, index) {
        (0, _) => format!("no {backend} device was found on this machine"),
        (1, Some(i)) => {
            format!("there is no {backend}:{i}; the only {backend} device is {backend}:0")
        }
        (_, Some(i)) => {
            format!("there is no {backend}:{i}; {backend}:0 to {backend}:{} were found", count - 1)
        }
        (_, None) => format!("{backend} cannot be used"),
    };
    let hint = match backend {
        Backend::Cuda if count == 0 => {
            "check that the NVIDIA driver is installed (`nvidia-smi`), or use --device cpu"
        }
        Backend::Vulkan | Backend::WebGpu if count == 0 => {
            "install a graphics driver with Vulkan support, or use --device cpu"
        }
        _ => "`janus devices` lists what can be used",
    };
    Failure::new(Exit::Missing, message).hint(hint)
}

/// A device for questions about shapes. Nothing is ever computed or allocated on it.
pub fn idle() -> Device {
    #[cfg(feature = "cpu")]
    return Device::flex();
    #[cfg(not(feature = "cpu"))]
    {
        let mut all = Backend::ALL.into_iter().rev().flat_map(Backend::enumerate);
        all.next().unwrap_or_else(|| unreachable!("Burn does not build without any backend"))
    }
}

/// Prepares the process for devices: should anything inside Burn ask for its default device after
/// all, it gets the one named.
pub fn pin(name: &str) {
    let set = |key: &str, value: &OsStr| {
        if std::env::var_os(key).is_none() {
            // SAFETY: called before the first device is touched; no other thread is running yet.
            unsafe { std::env::set_var(key, value) };
        }
    };
    set("BURN_DEVICE", OsStr::new(name));
    if cfg!(target_os = "linux") {
        // Without a desktop session, Mesa complains about this on stderr, once per probe.
        set("XDG_RUNTIME_DIR", std::env::temp_dir().as_os_str());
    }
}

/// Runs something that may panic inside a driver, on any thread, without its noise.
pub fn quietly<T>(run: impl FnOnce() -> T) -> Option<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = catch_unwind(AssertUnwindSafe(run));
    std::panic::set_hook(hook);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_parse() {
        let parse = |text: &str| text.parse::<DeviceChoice>();
        assert_eq!(parse("auto"), Ok(DeviceChoice::Auto));
        assert_eq!(parse("CUDA:1"), Ok(DeviceChoice::Fixed(Backend::Cuda, Some(1))));
        assert_eq!(parse("vulkan"), Ok(DeviceChoice::Fixed(Backend::Vulkan, None)));
        assert_eq!(parse("wgpu:0"), parse("webgpu:0"));
        for bad in ["", "gpu", "cuda:", "cuda:-1", "cpu:0", "auto:1", "cuda:1:2"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[cfg(feature = "cpu")]
    #[test]
    fn software_is_never_automatic() {
        let device = Device::flex();
        let card = |software| Found {
            backend: Backend::Vulkan,
            index: 0,
            name: "llvmpipe".into(),
            software,
            device: device.clone(),
        };
        assert!(!card(true).is_automatic() && card(false).is_automatic());
    }
}
