//! Fixtures made by PyTorch, the devices compiled in, and comparison with a stated bound.
// Each test target uses a part of this; what it measures is for whoever runs with `--nocapture`.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

use std::path::{Path, PathBuf};

use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use janus_model::{Janus, LoadOptions};
use safetensors::SafeTensors;

/// `tests/fixtures`.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// One compute device, and how far it may stray from PyTorch, as a share of a tensor's scale.
#[derive(Clone)]
pub struct Target {
    pub name: &'static str,
    pub device: Device,
    pub dtype: DType,
    pub bound: f64,
}

/// Every backend compiled in. Flex runs twice: with f32 weights and with the file's bf16.
pub fn targets() -> Vec<Target> {
    let mut targets = Vec::new();
    let mut add = |name, device: Device, dtype, bound| {
        targets.push(Target { name, device, dtype, bound });
    };
    #[cfg(feature = "cpu")]
    {
        add("flex", Device::flex(), DType::F32, 1e-4);
        add("flex-bf16", Device::flex(), DType::BF16, 1e-4);
    }
    #[cfg(feature = "ndarray")]
    #[allow(deprecated)]
    add("ndarray", Device::ndarray(), DType::F32, 1e-4);
    #[cfg(feature = "wgpu-parity")]
    if let Some(device) = wgpu() {
        add("wgpu", device, DType::F32, 1e-3);
    }
    targets
}

/// The first wgpu adapter. Without any, the rung is skipped aloud, or fails where
/// `JANUS_PARITY_WGPU=required` says that there must be one.
#[cfg(feature = "wgpu-parity")]
pub fn wgpu() -> Option<Device> {
    use burn::tensor::DeviceType;
    let found = std::panic::catch_unwind(|| Device::enumerate(DeviceType::Wgpu).into_vec());
    let device = found.ok().and_then(|devices| devices.into_iter().next());
    if device.is_none() {
        let required = std::env::var("JANUS_PARITY_WGPU").is_ok_and(|value| value == "required");
        assert!(!required, "no wgpu adapter; install a Vulkan driver, such as Mesa's lavapipe");
        eprintln!("skipped on wgpu: this machine has no adapter");
    }
    device
}

/// Expected values of one tiny model.
pub struct Fixture {
    bytes: Vec<u8>,
}

impl Fixture {
    pub fn open(model: &str) -> Self {
        Self::file(model, "expected.safetensors")
    }

    /// Another file of the same kind beside it.
    pub fn file(model: &str, name: &str) -> Self {
        let path = fixtures().join(model).join(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| {
            panic!("{}: {e}; see tests/fixtures/README.md for how to make it", path.display())
        });
        Self { bytes }
    }

    fn view(&self, key: &str) -> (Vec<usize>, Vec<u8>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(key).unwrap_or_else(|e| panic!("fixture {key}: {e}"));
        (view.shape().to_vec(), view.data().to_vec())
    }

    pub fn has(&self, key: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(key).is_ok()
    }

    pub fn keys(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        file.names().into_iter().map(str::to_owned).collect()
    }

    pub fn shape(&self, key: &str) -> Vec<usize> {
        self.view(key).0
    }

    pub fn f32s(&self, key: &str) -> Vec<f32> {
        let data = self.view(key).1;
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn i32s(&self, key: &str) -> Vec<i32> {
        let data = self.view(key).1;
        data.chunks_exact(8)
            .map(|b| i32::try_from(i64::from_le_bytes(b.try_into().unwrap())).unwrap())
            .collect()
    }

    pub fn bytes(&self, key: &str) -> Vec<u8> {
        self.view(key).1
    }

    pub fn float<const D: usize>(&self, key: &str, device: &Device) -> Tensor<D> {
        Tensor::from_data(TensorData::new(self.f32s(key), self.shape(key)), device)
    }

    /// Ids as `[B, T]`; a flat list becomes one row.
    pub fn ids(&self, key: &str, device: &Device) -> Tensor<2, Int> {
        let shape = self.shape(key);
        let rows = if shape.len() == 2 { shape[0] } else { 1 };
        let values = self.i32s(key);
        let columns = values.len() / rows;
        Tensor::from_data(TensorData::new(values, [rows, columns]), device)
    }

    pub fn mask(&self, key: &str, device: &Device) -> Tensor<2, Bool> {
        self.ids(key, device).equal_elem(1)
    }
}

/// The folders that hold the same weights of one tiny model in other names and formats.
pub const FOLDERS: [(&str, &str); 4] = [
    ("tiny-pro", "original"),
    ("tiny-pro", "hf"),
    ("tiny-odd", "hf"),
    ("tiny-odd", "original-bin"),
];

/// The model that comes with the program, seen from the folder of what it must compute.
///
/// Measured, the worst of all rungs: 2.1e-6 flex, 2.1e-6 flex-bf16, 3.4e-6 ndarray, 4.2e-6 wgpu.
pub const JANUS_TINY: (&str, &str) = ("janus-tiny", "../../../weights/janus-tiny");

/// Every folder on every device, and the model that comes with the program.
pub fn each(mut check: impl FnMut(&Case)) {
    for target in targets() {
        for (model, folder) in FOLDERS.into_iter().chain([JANUS_TINY]) {
            check(&Case::new(model, folder, &target));
        }
    }
}

/// One loaded tiny model beside what PyTorch computed from the same file.
pub struct Case {
    pub model: &'static str,
    pub folder: &'static str,
    pub target: Target,
    pub janus: Janus,
    pub fixture: Fixture,
}

impl Case {
    pub fn new(model: &'static str, folder: &'static str, target: &Target) -> Self {
        let path = fixtures().join(model).join(folder);
        let options = LoadOptions { dtype: Some(target.dtype), ..Default::default() };
        let (janus, _) = Janus::load(&path, &target.device, &options)
            .unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
        Self { model, folder, target: target.clone(), janus, fixture: Fixture::open(model) }
    }

    pub fn device(&self) -> &Device {
        &self.target.device
    }

    /// Compares with the fixture of the same name and prints the measured difference.
    pub fn close<const D: usize>(&self, key: &str, actual: Tensor<D>) {
        let shape = actual.dims();
        let actual = values(actual);
        let expected = self.fixture.f32s(key);
        assert_eq!(shape.to_vec(), self.fixture.shape(key), "{key}: shape");
        self.close_to(key, &actual, &expected);
    }

    /// Compares two lists of numbers, as a share of the largest expected one.
    pub fn close_to(&self, key: &str, actual: &[f32], expected: &[f32]) {
        assert_eq!(actual.len(), expected.len(), "{key}: length");
        let scale = expected.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
        let mut worst = (0.0, 0);
        for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
            let difference = (f64::from(*a) - f64::from(*e)).abs();
            if difference > worst.0 || difference.is_nan() {
                worst = (difference, i);
            }
        }
        let share = worst.0 / scale;
        let label = format!("{}/{} {} {key}", self.model, self.folder, self.target.name);
        println!("measured {label}: {share:.1e} of {scale:.3}");
        assert!(
            share <= self.target.bound,
            "{label}: element {} is {}, PyTorch has {}; {share:.1e} of the scale {scale}, bound {:.0e}",
            worst.1,
            actual[worst.1],
            expected[worst.1],
            self.target.bound,
        );
    }
}

/// A float tensor on the host, in f32.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().try_into_vec().unwrap()
}

/// An int tensor on the host.
pub fn ints<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i32> {
    tensor.cast(burn::tensor::IntDType::I32).into_data().try_into_vec().unwrap()
}
