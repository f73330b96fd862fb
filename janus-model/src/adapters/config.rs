//! `adapter_config.json`, as PEFT writes it.
//!
//! PEFT knows many settings beside those of LoRA, and gains new ones. What only concerns training
//! is passed over; what changes the result and is not computed here is refused by name, and so is
//! an unknown setting, unless it is switched off.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::AdapterError;
use super::files::CONFIG;
use crate::checkpoint::json::UniqueMap;
use crate::checkpoint::shards::read_capped;
use crate::checkpoint::{CheckpointError, Limits};
use crate::error::{Error, printable};

/// Settings that say nothing about what a trained adapter computes, or that its tensors say, too.
const PASSED_OVER: [&str; 20] = [
    "task_type",
    "auto_mapping",
    "peft_version",
    "revision",
    "inference_mode",
    "target_modules",
    "exclude_modules",
    "lora_dropout",
    "fan_in_fan_out",
    "layers_to_transform",
    "layers_pattern",
    "megatron_config",
    "megatron_core",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "qalora_group_size",
    "runtime_config",
    "velora_config",
];

/// What the configuration of an adapter says about its scale.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// The model it was made for: a folder or the name of a model.
    pub base: Option<String>,
    /// r, the usual rank.
    pub rank: usize,
    /// α, the usual one.
    pub alpha: f64,
    /// Other ranks, by layer.
    pub rank_pattern: Vec<(String, usize)>,
    /// Other α, by layer.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Whether the scale is α / √r in place of α / r.
    pub root: bool,
}

#[derive(Deserialize)]
struct Raw {
    peft_type: String,
    base_model_name_or_path: Option<String>,
    r: usize,
    lora_alpha: f64,
    use_rslora: Option<bool>,
    rank_pattern: Option<UniqueMap<usize>>,
    alpha_pattern: Option<UniqueMap<f64>>,
    bias: Option<String>,
    init_lora_weights: Option<Value>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl AdapterConfig {
    /// Reads the configuration of an adapter folder.
    ///
    /// # Errors
    /// No such file, and whatever is wrong with it.
    pub fn of(dir: &Path, limits: &Limits) -> Result<Self, Error> {
        let path = dir.join(CONFIG);
        match read_capped(&path, limits.json_bytes) {
            Ok(bytes) => Ok(Self::parse(&path, &bytes)?),
            Err(CheckpointError::NotFound { .. }) => {
                Err(AdapterError::NotAnAdapter { path: dir.to_owned(), file: CONFIG }.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the file at `path`, whose bytes these are.
    ///
    /// # Errors
    /// Not JSON, settings of other methods, numbers that make no adapter.
    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, AdapterError> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| AdapterError::Config {
            path: path.to_owned(),
            reason: printable(&error.to_string(), 300),
        })?;
        if let Some((setting, value)) = raw.unsupported() {
            let value = printable(&value.to_string(), 80);
            let setting = printable(&setting, 80);
            return Err(AdapterError::Unsupported { path: path.to_owned(), setting, value });
        }
        let config = Self {
            base: raw.base_model_name_or_path.filter(|base| !base.trim().is_empty()),
            rank: raw.r,
            alpha: raw.lora_alpha,
            rank_pattern: raw.rank_pattern.map_or_else(Vec::new, |map| map.0),
            alpha_pattern: raw.alpha_pattern.map_or_else(Vec::new, |map| map.0),
            root: raw.use_rslora.unwrap_or(false),
        };
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), AdapterError> {
        let range = |setting: &str, value: String, range| {
            let setting = printable(setting, 120);
            Err(AdapterError::Range { path: path.to_owned(), setting, value, range })
        };
        let ranks = self.rank_pattern.iter().map(|(name, rank)| (name.as_str(), *rank));
        for (name, rank) in std::iter::once(("r", self.rank)).chain(ranks) {
            if !(1..=MAX_RANK).contains(&rank) {
                return range(name, rank.to_string(), "1..=65536");
            }
        }
        let alphas = self.alpha_pattern.iter().map(|(name, alpha)| (name.as_str(), *alpha));
        for (name, alpha) in std::iter::once(("lora_alpha", self.alpha)).chain(alphas) {
            if !alpha.is_finite() || alpha == 0.0 || alpha.abs() > 1e6 {
                return range(name, alpha.to_string(), "-1e6..=1e6 without 0");
            }
        }
        let patterns = [
            ("rank_pattern", self.rank_pattern.iter().map(|p| &p.0).collect::<Vec<_>>()),
            ("alpha_pattern", self.alpha_pattern.iter().map(|p| &p.0).collect()),
        ];
        for (setting, names) in patterns {
            if let Some(name) = names.into_iter().find(|name| !is_plain(name)) {
                let (setting, value) = (setting.to_owned(), printable(&format!("{name:?}"), 120));
                return Err(AdapterError::Unsupported { path: path.to_owned(), setting, value });
            }
        }
        Ok(())
    }

    /// The rank that a layer should have, by its name in the file.
    pub fn rank_of(&self, module: &str) -> usize {
        let found = self.rank_pattern.iter().find(|(pattern, _)| matches(pattern, module));
        found.map_or(self.rank, |(_, rank)| *rank)
    }

    /// What B·A is multiplied by.
    pub fn scale_of(&self, module: &str, rank: usize) -> f64 {
        let found = self.alpha_pattern.iter().find(|(pattern, _)| matches(pattern, module));
        let alpha = found.map_or(self.alpha, |(_, alpha)| *alpha);
        if self.root { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 }
    }

    /// The file's text, for an adapter on these modules.
    pub(super) fn write(&self, modules: &[String]) -> String {
        let patterns = |pairs: Vec<(String, Value)>| -> Value {
            pairs.into_iter().collect::<serde_json::Map<_, _>>().into()
        };
        let ranks = self.rank_pattern.iter().map(|(name, rank)| (name.clone(), json!(rank)));
        let alphas = self.alpha_pattern.iter().map(|(name, a)| (name.clone(), number(*a)));
        let value = json!({
            "peft_type": "LORA",
            "task_type": null,
            "base_model_name_or_path": self.base,
            "r": self.rank,
            "lora_alpha": number(self.alpha),
            "rank_pattern": patterns(ranks.collect()),
            "alpha_pattern": patterns(alphas.collect()),
            "use_rslora": self.root,
            "target_modules": modules,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "modules_to_save": null,
            "use_dora": false,
            "inference_mode": true,
        });
        format!("{value:#}\n")
    }
}

impl Raw {
    /// The first setting that asks for more than plain LoRA.
    fn unsupported(&self) -> Option<(String, Value)> {
        let found = |name: &str, value: Value| Some((name.to_owned(), value));
        if self.peft_type != "LORA" {
            return found("peft_type", json!(self.peft_type));
        }
        if let Some(bias) = self.bias.as_ref().filter(|bias| *bias != "none") {
            return found("bias", json!(bias));
        }
        // These starts split the model's own weight into adapter and rest.
        let splits = |start: &&Value| {
            let start = start.as_str().unwrap_or_default().to_lowercase();
            ["pissa", "olora", "corda", "loftq", "lora_ga"].iter().any(|s| start.starts_with(s))
        };
        if let Some(start) = self.init_lora_weights.as_ref().filter(splits) {
            return found("init_lora_weights", start.clone());
        }
        let rest = self
            .rest
            .iter()
            .find(|(name, value)| !PASSED_OVER.contains(&name.as_str()) && !is_off(value));
        rest.map(|(name, value)| (name.clone(), value.clone()))
    }
}

/// No matrix of any Janus has a longer side, but for the text head.
const MAX_RANK: usize = 1 << 16;

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Whole numbers as PEFT declares them, without a point.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e9 { json!(value as i64) } else { json!(value) }
}

/// PEFT takes patterns for regular expressions. Names are what people write, and these are the
/// expressions that a name can be: anything else is refused.
fn is_plain(pattern: &str) -> bool {
    let name = pattern.strip_prefix('^').unwrap_or(pattern).replace("\\.", ".");
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Whether a plain pattern is the name of a module or its last parts, as in PEFT.
fn matches(pattern: &str, module: &str) -> bool {
    let (pattern, whole) = match pattern.strip_prefix('^') {
        Some(pattern) => (pattern.replace("\\.", "."), true),
        None => (pattern.replace("\\.", "."), false),
    };
    match module.strip_suffix(&pattern) {
        Some("") => true,
        Some(before) => !whole && before.ends_with('.'),
        None => false,
    }
}
