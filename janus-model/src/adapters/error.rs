//! What can be wrong with an adapter folder, and with an adapter on a model.

use std::fmt;
use std::path::PathBuf;

use crate::checkpoint::error::shown;
use crate::error::ErrorKind;

/// Misfits shown; the value keeps all of them.
const SHOWN: usize = 20;

/// Why an adapter could not be read, attached or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// The folder lacks one of its two files.
    #[error("{}: no {file} here, so this is no adapter", path.display())]
    NotAnAdapter {
        /// The folder.
        path: PathBuf,
        /// The file looked for.
        file: &'static str,
    },
    /// `adapter_config.json` is not what it should be.
    #[error("{}: not an adapter configuration: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The parser's complaint.
        reason: String,
    },
    /// A setting that changes what the adapter computes, and that nothing here computes.
    #[error("{}: {setting} = {value} is not supported", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The setting.
        setting: String,
        /// Its value, as JSON.
        value: String,
    },
    /// A number that makes no adapter.
    #[error("{}: {setting} = {value} is outside {range}", path.display())]
    Range {
        /// The file.
        path: PathBuf,
        /// The setting.
        setting: String,
        /// Its value.
        value: String,
        /// What it may be.
        range: &'static str,
    },
    /// The tensors do not fit each other, the configuration or the model.
    #[error("{}: the adapter does not fit{}", path.display(), listed(problems))]
    Misfit {
        /// The folder.
        path: PathBuf,
        /// Everything that is wrong, in order of the names.
        problems: Vec<Misfit>,
    },
    /// A model without adapters was to be saved as an adapter.
    #[error("no layer of the model has an adapter, so there is nothing to save")]
    Nothing,
}

/// One thing that is wrong with the tensors of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misfit {
    /// A tensor that is no half of an adapter.
    Foreign {
        /// The tensor.
        tensor: String,
    },
    /// A tensor that is there under two names.
    Twice {
        /// The tensor.
        tensor: String,
    },
    /// A layer with only one of its halves.
    Half {
        /// The tensor that is missing.
        tensor: String,
    },
    /// A layer that the model does not have, or that is no linear layer.
    NoLayer {
        /// The layer, as the file names it.
        module: String,
    },
    /// A tensor of the wrong shape.
    Shape {
        /// The tensor.
        tensor: String,
        /// What it should be; `None` stands for any size.
        expected: [Option<usize>; 2],
        /// What it is.
        found: Vec<usize>,
    },
    /// A rank beyond reason.
    Rank {
        /// The layer, as the file names it.
        module: String,
        /// Its rank.
        rank: usize,
        /// Height and width of its weight.
        sides: [usize; 2],
    },
    /// No tensors at all.
    Empty,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { tensor } => {
                write!(f, "{} is no lora_A.weight or lora_B.weight of a layer", shown(tensor))
            }
            Self::Twice { tensor } => write!(f, "{} is there twice", shown(tensor)),
            Self::Half { tensor } => write!(f, "{} is missing", shown(tensor)),
            Self::NoLayer { module } => write!(f, "the model has no layer {}", shown(module)),
            Self::Shape { tensor, expected, found } => {
                let side = |side: &Option<usize>| side.map_or("any".into(), |n| n.to_string());
                let [rows, columns] = expected;
                let expected = format!("[{}, {}]", side(rows), side(columns));
                write!(f, "{}: expected {expected}, found {found:?}", shown(tensor))
            }
            Self::Rank { module, rank, sides: [output, input] } => {
                write!(f, "{}: rank {rank} for a weight of {output} x {input}", shown(module))
            }
            Self::Empty => f.write_str("it holds no tensors"),
        }
    }
}

fn listed(problems: &[Misfit]) -> String {
    let mut text: String =
        problems.iter().take(SHOWN).map(|problem| format!("\n  {problem}")).collect();
    if let Some(more) = problems.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!("\n  … and {more} more"));
    }
    text
}

impl AdapterError {
    /// Whose fault this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotAnAdapter { .. } => ErrorKind::Missing,
            Self::Config { .. } => ErrorKind::BadData,
            Self::Unsupported { .. } | Self::Range { .. } | Self::Misfit { .. } => {
                ErrorKind::Config
            }
            Self::Nothing => ErrorKind::Usage,
        }
    }

    /// What to do next, where there is good advice.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotAnAdapter { .. } => {
                "an adapter is a folder with adapter_config.json and adapter_model.safetensors"
            }
            Self::Unsupported { setting, .. } => unsupported_hint(setting),
            Self::Misfit { problems, .. } => misfit_hint(problems)?,
            _ => return None,
        };
        Some(text.to_owned())
    }
}

fn unsupported_hint(setting: &str) -> &'static str {
    match setting {
        "peft_type" => "only LoRA adapters are read; merge others into their model with PEFT",
        "init_lora_weights" => {
            "this start changes the model's own weights; save the adapter as plain LoRA with \
             PEFT's path_initial_model_for_weight_conversion"
        }
        "modules_to_save" | "bias" | "trainable_token_indices" => {
            "the adapter replaces weights of the model; merge it with PEFT (merge_and_unload) \
             and use the merged model"
        }
        "rank_pattern" | "alpha_pattern" => "write the layers' names in full",
        _ => {
            "only plain LoRA is computed here; merge the adapter with PEFT (merge_and_unload) \
             and use the merged model"
        }
    }
}

fn misfit_hint(problems: &[Misfit]) -> Option<&'static str> {
    match problems.first()? {
        Misfit::Shape { .. } | Misfit::Rank { .. } | Misfit::NoLayer { .. } => {
            Some("was the adapter trained on another model? Its base is in adapter_config.json")
        }
        _ => Some("the file is damaged or incomplete; copy or export the adapter again"),
    }
}
