//! What the published checkpoints contain: every name and shape, without the weights.
//!
//! The lists live in `weights/manifests/`. They are generated from the tables of the architecture
//! (the `shapes` module, tests only) and agree with the published totals, so that naming and
//! shapes can be tested, and a folder recognised, without gigabytes at hand.

use std::{collections::HashMap, fmt};

use serde::Deserialize;

use super::{
    Checkpoint,
    error::{CheckpointError, shown},
    json::UniqueMap,
    keys::{self, Import, Naming},
    lazy::LazyTensor,
};

const BUILTIN: [(&str, &str); 4] = [
    ("janus-pro-1b", include_str!("../../../weights/manifests/janus-pro-1b.json")),
    ("janus-pro-7b", include_str!("../../../weights/manifests/janus-pro-7b.json")),
    ("janus-pro-1b-hf", include_str!("../../../weights/manifests/janus-pro-1b-hf.json")),
    ("janus-pro-7b-hf", include_str!("../../../weights/manifests/janus-pro-7b-hf.json")),
];

/// Names and shapes of one published checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `janus-pro-1b`, `janus-pro-7b-hf`, …
    pub name: String,
    /// Who named the tensors.
    pub naming: Naming,
    /// Element type of all tensors, as safetensors spells it.
    pub dtype: String,
    /// Elements of all tensors together.
    pub elements: u64,
    /// Name and shape, in the order of the published state dict.
    pub tensors: Vec<(String, Vec<usize>)>,
}

/// One way in which a checkpoint deviates from a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// In the manifest, not in the checkpoint.
    Missing {
        /// Tensor.
        name: String,
        /// Shape in the manifest.
        shape: Vec<usize>,
    },
    /// In the checkpoint, not in the manifest.
    Unexpected {
        /// Tensor.
        name: String,
        /// Shape in the checkpoint.
        shape: Vec<usize>,
    },
    /// Of another shape.
    Shape {
        /// Tensor.
        name: String,
        /// Shape in the manifest.
        expected: Vec<usize>,
        /// Shape in the checkpoint.
        found: Vec<usize>,
    },
    /// Of another element type.
    Dtype {
        /// Tensor.
        name: String,
        /// Type in the manifest.
        expected: String,
        /// Type in the checkpoint.
        found: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, shape } => write!(f, "missing {} {shape:?}", shown(name)),
            Self::Unexpected { name, shape } => write!(f, "unexpected {} {shape:?}", shown(name)),
            Self::Shape { name, expected, found } => {
                write!(f, "shape of {}: expected {expected:?}, found {found:?}", shown(name))
            }
            Self::Dtype { name, expected, found } => {
                write!(f, "dtype of {}: expected {expected}, found {found}", shown(name))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    name: String,
    naming: String,
    dtype: String,
    tensor_count: usize,
    elements: u64,
    tensors: UniqueMap<Vec<usize>>,
}

impl Manifest {
    /// Names of the built-in manifests.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// A built-in manifest by name.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn builtin(name: &str) -> Result<Self, CheckpointError> {
        match BUILTIN.iter().find(|(known, _)| *known == name) {
            Some((name, json)) => Self::parse(name, json),
            None => Err(CheckpointError::UnknownManifest {
                name: name.to_owned(),
                known: Self::names().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    fn parse(name: &str, json: &str) -> Result<Self, CheckpointError> {
        use serde::de::Error;
        let bad = |source| CheckpointError::Manifest { name: name.to_owned(), source };
        let raw: RawManifest = serde_json::from_str(json).map_err(bad)?;
        let tensors = raw.tensors.0;
        let elements: u64 = tensors.iter().map(|(_, shape)| elements(shape)).sum();
        if tensors.len() != raw.tensor_count || elements != raw.elements {
            return Err(bad(serde_json::Error::custom("the totals do not fit the list")));
        }
        let naming = match raw.naming.as_str() {
            "original" => Naming::Original,
            "huggingface" => Naming::HuggingFace,
            _ => return Err(bad(serde_json::Error::custom("unknown naming"))),
        };
        Ok(Self { name: raw.name, naming, dtype: raw.dtype, elements, tensors })
    }

    /// Everything in which the files of a checkpoint deviate, in the manifest's order.
    #[must_use]
    pub fn compare(&self, checkpoint: &Checkpoint) -> Vec<Difference> {
        let mut rest: HashMap<&str, &LazyTensor> =
            checkpoint.raw().iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let mut differences = Vec::new();
        for (name, shape) in &self.tensors {
            let (name, expected) = (name.clone(), shape.clone());
            let Some(tensor) = rest.remove(name.as_str()) else {
                differences.push(Difference::Missing { name, shape: expected });
                continue;
            };
            let found = tensor.shape.to_vec();
            if found != expected {
                differences.push(Difference::Shape { name: name.clone(), expected, found });
            }
            let found = super::safetensors::dtype_name(tensor.dtype).unwrap_or("?");
            if found != self.dtype {
                let (expected, found) = (self.dtype.clone(), found.to_owned());
                differences.push(Difference::Dtype { name, expected, found });
            }
        }
        let extra = checkpoint.raw().iter().filter(|t| rest.contains_key(t.name.as_str()));
        differences.extend(extra.map(|tensor| Difference::Unexpected {
            name: tensor.name.clone(),
            shape: tensor.shape.to_vec(),
        }));
        differences
    }

    /// The published checkpoint that has the names and shapes of this one, if any.
    ///
    /// Element types may differ (converted copies), and so may tensors that are never loaded.
    #[must_use]
    pub fn identify(checkpoint: &Checkpoint) -> Option<Self> {
        let manifests = Self::names().filter_map(|name| Self::builtin(name).ok());
        manifests.into_iter().find(|manifest| {
            manifest.compare(checkpoint).iter().all(|difference| match difference {
                Difference::Dtype { .. } => true,
                Difference::Shape { .. } => false,
                Difference::Missing { name, .. } | Difference::Unexpected { name, .. } => {
                    matches!(keys::import(name, manifest.naming), Import::Drop(_))
                }
            })
        })
    }
}

fn elements(shape: &[usize]) -> u64 {
    shape.iter().map(|&dim| dim as u64).product()
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write, path::PathBuf};

    use super::*;
    use crate::checkpoint::shapes::{self, Size};

    fn render(name: &str, naming: &str, tensors: &[(String, Vec<usize>)]) -> String {
        let total: u64 = tensors.iter().map(|(_, shape)| elements(shape)).sum();
        let mut json = format!(
            "{{\n\"name\": \"{name}\",\n\"naming\": \"{naming}\",\n\"dtype\": \"BF16\",\n\
             \"tensor_count\": {},\n\"elements\": {total},\n\"tensors\": {{\n",
            tensors.len()
        );
        for (i, (name, shape)) in tensors.iter().enumerate() {
            let comma = if i + 1 < tensors.len() { "," } else { "" };
            writeln!(json, "\"{name}\": {shape:?}{comma}").unwrap();
        }
        json + "}\n}\n"
    }

    /// The committed lists are what the tables say. `UPDATE_MANIFESTS=1` rewrites them.
    #[test]
    fn committed_manifests_follow_the_tables() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../weights/manifests");
        let sizes = [("1b", shapes::PRO_1B), ("7b", shapes::PRO_7B)];
        for (size, numbers) in sizes {
            let original = shapes::original(&numbers);
            let hf = shapes::hugging_face(&numbers);
            for (suffix, naming, list) in [("", "original", original), ("-hf", "huggingface", hf)] {
                let name = format!("janus-pro-{size}{suffix}");
                let json = render(&name, naming, &list);
                let path = folder.join(format!("{name}.json"));
                if std::env::var_os("UPDATE_MANIFESTS").is_some() {
                    std::fs::write(&path, &json).unwrap();
                }
                let committed = std::fs::read_to_string(&path).unwrap();
                assert!(committed == json, "{name}: rerun with UPDATE_MANIFESTS=1");
                assert!(json.len() < 100_000, "{name}: {} bytes", json.len());
            }
        }
    }

    #[test]
    fn totals_are_the_published_ones() {
        let totals = |name| {
            let manifest = Manifest::builtin(name).unwrap();
            (manifest.tensors.len(), manifest.elements)
        };
        assert_eq!(totals("janus-pro-1b"), (882, 2_089_297_547));
        assert_eq!(totals("janus-pro-7b"), (936, 7_420_434_059));
        // Without the pooling head (12,595,200) and the usage buffer (65,536).
        assert_eq!(totals("janus-pro-1b-hf"), (964, 2_089_297_547 - 12_660_736));
        assert_eq!(totals("janus-pro-7b-hf"), (1018, 7_420_434_059 - 12_660_736));
    }

    /// Sizes per component as published: a compensating error in two tables would show here.
    #[test]
    fn components_have_their_published_sizes() {
        let sum = |size: &Size, prefix: &str| -> u64 {
            let list = shapes::original(size);
            list.iter().filter(|(n, _)| n.starts_with(prefix)).map(|(_, s)| elements(s)).sum()
        };
        let rows = [
            ("vision_model.", 316_283_904, 316_283_904),
            ("vision_model.vision_tower.attn_pool.", 12_595_200, 12_595_200),
            ("aligner.", 6_295_552, 20_979_712),
            ("gen_vision_model.", 71_948_939, 71_948_939),
            ("gen_vision_model.encoder.", 29_298_176, 29_298_176),
            ("gen_vision_model.decoder.", 42_449_795, 42_449_795),
            ("gen_aligner.", 4_214_784, 16_818_176),
            ("gen_head.", 37_767_168, 83_906_560),
            ("gen_embed.", 131_072, 131_072),
            ("language_model.", 1_652_656_128, 6_910_365_696),
        ];
        for (prefix, small, large) in rows {
            assert_eq!(sum(&shapes::PRO_1B, prefix), small, "{prefix} 1B");
            assert_eq!(sum(&shapes::PRO_7B, prefix), large, "{prefix} 7B");
        }
    }

    #[test]
    fn unknown_name_lists_the_known_ones() {
        let error = Manifest::builtin("janus-pro-3b").unwrap_err().to_string();
        assert!(error.contains("janus-pro-3b") && error.contains("janus-pro-7b-hf"), "{error}");
    }
}
