//! Tensor names: DeepSeek's own are canonical, those of Hugging Face `transformers` are translated.
//!
//! | canonical (original) | Hugging Face, without the outer `model.` |
//! |---|---|
//! | `vision_model.vision_tower.pos_embed` `[1,N,D]` | `vision_model.embeddings.position_embedding.weight` `[N,D]` |
//! | `….blocks.i.attn.qkv` `[3D,D]` | `….encoder.layers.i.self_attn.{q,k,v}_proj`, `[D,D]` each |
//! | `aligner.layers.{0,2,4,..}` | `aligner.fc1`, `aligner.hidden_layers.{0,1,..}` |
//! | `gen_vision_model.encoder.conv_blocks.l.res.j` | `vqmodel.encoder.down.l.block.j` |
//! | `language_model.model.*`, `language_model.lm_head.*` | `language_model.*`, `lm_head.*` |
//!
//! Names that are neither known nor declared as dropped pass through unchanged, so that the strict
//! comparison with the model reports them as unused.

use std::collections::HashMap;

use super::lazy::{self, LazyTensor};

/// Who named the tensors of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Naming {
    /// `deepseek-ai/Janus-Pro-*`: the names of the reference code.
    Original,
    /// `transformers` since its Janus port settled: everything below `model.`, plus `lm_head`.
    HuggingFace,
    /// Early conversions: no outer `model.`, and `language_model.model.*`.
    HuggingFaceLegacy,
}

impl Naming {
    /// Guesses the naming from tensor names; [`Naming::Original`] if nothing speaks against it.
    #[must_use]
    pub fn detect<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        const ONLY_HF: [&str; 7] = [
            "vqmodel.",
            "vision_model.encoder.",
            "vision_model.embeddings.",
            "vision_model.post_layernorm.",
            "aligner.fc1.",
            "generation_",
            "language_model.layers.",
        ];
        let mut naming = Self::Original;
        for name in names {
            let inner = name.strip_prefix("model.");
            if inner.is_some_and(|inner| ONLY_HF.iter().any(|prefix| inner.starts_with(prefix))) {
                return Self::HuggingFace;
            }
            if ONLY_HF.iter().any(|prefix| name.starts_with(prefix)) {
                naming = Self::HuggingFaceLegacy;
            }
        }
        naming
    }
}

/// What becomes of a tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Import {
    /// It is this canonical tensor.
    Whole(String),
    /// It is this canonical tensor but for a leading dimension of 1.
    Unsqueeze(String),
    /// It is the n-th third of this canonical tensor.
    Third(String, usize),
    /// The model has no use for it.
    Drop(&'static str),
}

/// What a canonical tensor is called, or split into, in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Export {
    /// One tensor of this name.
    Whole(String),
    /// One tensor of this name, without its leading dimension of 1.
    Squeeze(String),
    /// Three tensors of equal height.
    Thirds([String; 3]),
    /// The naming has no place for it.
    Drop(&'static str),
}

const POOL: &str = "pooling head, never used by Janus";
const USAGE: &str = "usage statistics buffer";
const ROPE: &str = "recomputed from rope_theta";
const POSITIONS: &str = "buffer 0, 1, 2, …, implied by the position embedding";
const TOWER: &str = "vision_model.vision_tower";
const QKV: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

/// Why a canonical tensor is not loaded; `None` if it is.
#[must_use]
pub fn drop_reason(canonical: &str) -> Option<&'static str> {
    if canonical.starts_with("vision_model.vision_tower.attn_pool.") {
        Some(POOL)
    } else if canonical == "gen_vision_model.quantize.codebook_used" {
        Some(USAGE)
    } else if canonical.ends_with(".rotary_emb.inv_freq") {
        Some(ROPE)
    } else {
        None
    }
}

/// Translates a name of a file.
pub(crate) fn import(name: &str, naming: Naming) -> Import {
    let import = match naming {
        Naming::Original => Import::Whole(name.to_owned()),
        Naming::HuggingFace | Naming::HuggingFaceLegacy => {
            let inner = name.strip_prefix("model.").unwrap_or(name);
            from_hf(inner).unwrap_or_else(|| Import::Whole(name.to_owned()))
        }
    };
    match import {
        Import::Whole(canonical) => match drop_reason(&canonical) {
            Some(reason) => Import::Drop(reason),
            None => Import::Whole(canonical),
        },
        other => other,
    }
}

/// Hugging Face name without `model.` to canonical; `None` for unknown names.
fn from_hf(name: &str) -> Option<Import> {
    let parts: Vec<&str> = name.split('.').collect();
    let whole = |name: String| Some(Import::Whole(name));
    match parts.as_slice() {
        ["vision_model", "head", ..] => Some(Import::Drop(POOL)),
        ["vision_model", rest @ ..] => vision_from_hf(rest),
        ["aligner", rest @ ..] => whole(format!("aligner.{}", mlp_from_hf(rest)?)),
        ["generation_aligner", rest @ ..] => whole(format!("gen_aligner.{}", mlp_from_hf(rest)?)),
        ["generation_embeddings", leaf] => whole(format!("gen_embed.{leaf}")),
        ["generation_head", "proj_out", leaf] => {
            whole(format!("gen_head.output_mlp_projector.{leaf}"))
        }
        ["generation_head", "vision_head", leaf] => whole(format!("gen_head.vision_head.{leaf}")),
        ["vqmodel", rest @ ..] => whole(format!("gen_vision_model.{}", vq_from_hf(rest))),
        ["lm_head", leaf] => whole(format!("language_model.lm_head.{leaf}")),
        ["language_model", "model" | "lm_head", ..] => whole(name.to_owned()),
        ["language_model", rest @ ..] => whole(format!("language_model.model.{}", rest.join("."))),
        _ => None,
    }
}

fn vision_from_hf(parts: &[&str]) -> Option<Import> {
    let whole = |name: String| Some(Import::Whole(format!("{TOWER}.{name}")));
    match parts {
        ["embeddings", "position_embedding", "weight"] => {
            Some(Import::Unsqueeze(format!("{TOWER}.pos_embed")))
        }
        ["embeddings", "position_ids"] => Some(Import::Drop(POSITIONS)),
        ["embeddings", "patch_embedding", leaf] => whole(format!("patch_embed.proj.{leaf}")),
        ["post_layernorm", leaf] => whole(format!("norm.{leaf}")),
        ["encoder", "layers", i, "layer_norm1", leaf] => whole(format!("blocks.{i}.norm1.{leaf}")),
        ["encoder", "layers", i, "layer_norm2", leaf] => whole(format!("blocks.{i}.norm2.{leaf}")),
        ["encoder", "layers", i, "mlp", fc, leaf] => whole(format!("blocks.{i}.mlp.{fc}.{leaf}")),
        ["encoder", "layers", i, "self_attn", "projection_layer", leaf] => {
            whole(format!("blocks.{i}.attn.proj.{leaf}"))
        }
        ["encoder", "layers", i, "self_attn", part, leaf] => {
            let third = QKV.iter().position(|name| name == part)?;
            Some(Import::Third(format!("{TOWER}.blocks.{i}.attn.qkv.{leaf}"), third))
        }
        _ => None,
    }
}

/// `fc1` is linear 0, `hidden_layers.n` linear n + 1; activations take the odd indices.
fn mlp_from_hf(parts: &[&str]) -> Option<String> {
    match parts {
        ["fc1", leaf] => Some(format!("layers.0.{leaf}")),
        ["hidden_layers", n, leaf] => {
            let n: usize = n.parse().ok().filter(|&n| n < 1000)?;
            Some(format!("layers.{}.{leaf}", 2 * n + 2))
        }
        _ => None,
    }
}

fn vq_from_hf(parts: &[&str]) -> String {
    match parts {
        [coder, "down" | "up", level, "block", rest @ ..] => {
            format!("{coder}.conv_blocks.{level}.res.{}", rest.join("."))
        }
        [coder, "down" | "up", level, rest @ ..] => {
            format!("{coder}.conv_blocks.{level}.{}", rest.join("."))
        }
        [coder, "mid", "block_1", rest @ ..] => format!("{coder}.mid.0.{}", rest.join(".")),
        [coder, "mid", "attn_1", rest @ ..] => format!("{coder}.mid.1.{}", rest.join(".")),
        [coder, "mid", "block_2", rest @ ..] => format!("{coder}.mid.2.{}", rest.join(".")),
        _ => parts.join("."),
    }
}

/// Translates a canonical name into a naming; `None` for names that are not canonical.
pub(crate) fn export(canonical: &str, naming: Naming) -> Option<Export> {
    if naming == Naming::Original {
        return Some(Export::Whole(canonical.to_owned()));
    }
    if let Some(reason) = drop_reason(canonical) {
        return Some(Export::Drop(reason));
    }
    let wrapped = naming == Naming::HuggingFace;
    if let Some(rest) = canonical.strip_prefix("language_model.") {
        return Some(Export::Whole(match rest.strip_prefix("model.") {
            Some(inner) if wrapped => format!("model.language_model.{inner}"),
            None if wrapped => rest.to_owned(),
            _ => canonical.to_owned(),
        }));
    }
    let outer = |name: String| {
        if wrapped { format!("model.{name}") } else { name }
    };
    Some(match to_hf(canonical)? {
        Export::Whole(name) => Export::Whole(outer(name)),
        Export::Squeeze(name) => Export::Squeeze(outer(name)),
        Export::Thirds(names) => Export::Thirds(names.map(outer)),
        drop @ Export::Drop(_) => drop,
    })
}

/// Canonical name outside the language model to Hugging Face, without `model.`.
fn to_hf(canonical: &str) -> Option<Export> {
    let parts: Vec<&str> = canonical.split('.').collect();
    let whole = |name: String| Some(Export::Whole(name));
    match parts.as_slice() {
        ["vision_model", "vision_tower", rest @ ..] => vision_to_hf(rest),
        ["aligner", "layers", i, leaf] => whole(format!("aligner.{}.{leaf}", mlp_to_hf(i)?)),
        ["gen_aligner", "layers", i, leaf] => {
            whole(format!("generation_aligner.{}.{leaf}", mlp_to_hf(i)?))
        }
        ["gen_embed", leaf] => whole(format!("generation_embeddings.{leaf}")),
        ["gen_head", "output_mlp_projector", leaf] => {
            whole(format!("generation_head.proj_out.{leaf}"))
        }
        ["gen_head", "vision_head", leaf] => whole(format!("generation_head.vision_head.{leaf}")),
        ["gen_vision_model", rest @ ..] => whole(format!("vqmodel.{}", vq_to_hf(rest))),
        _ => None,
    }
}

fn vision_to_hf(parts: &[&str]) -> Option<Export> {
    let name = match parts {
        ["pos_embed"] => {
            let name = "vision_model.embeddings.position_embedding.weight";
            return Some(Export::Squeeze(name.to_owned()));
        }
        ["blocks", i, "attn", "qkv", leaf] => {
            let third = |part| format!("vision_model.encoder.layers.{i}.self_attn.{part}.{leaf}");
            return Some(Export::Thirds(QKV.map(third)));
        }
        ["patch_embed", "proj", leaf] => format!("embeddings.patch_embedding.{leaf}"),
        ["norm", leaf] => format!("post_layernorm.{leaf}"),
        ["blocks", i, "norm1", leaf] => format!("encoder.layers.{i}.layer_norm1.{leaf}"),
        ["blocks", i, "norm2", leaf] => format!("encoder.layers.{i}.layer_norm2.{leaf}"),
        ["blocks", i, "mlp", fc, leaf] => format!("encoder.layers.{i}.mlp.{fc}.{leaf}"),
        ["blocks", i, "attn", "proj", leaf] => {
            format!("encoder.layers.{i}.self_attn.projection_layer.{leaf}")
        }
        _ => return None,
    };
    Some(Export::Whole(format!("vision_model.{name}")))
}

fn mlp_to_hf(index: &str) -> Option<String> {
    match index.parse::<usize>().ok()? {
        0 => Some("fc1".to_owned()),
        i if i % 2 == 0 => Some(format!("hidden_layers.{}", i / 2 - 1)),
        _ => None,
    }
}

fn vq_to_hf(parts: &[&str]) -> String {
    match parts {
        [coder, "conv_blocks", level, rest @ ..] => {
            let way = if *coder == "encoder" { "down" } else { "up" };
            let (kind, rest) = match rest {
                ["res", rest @ ..] => ("block", rest),
                [kind, rest @ ..] => (*kind, rest),
                [] => ("", rest),
            };
            format!("{coder}.{way}.{level}.{kind}.{}", rest.join("."))
        }
        [coder, "mid", "0", rest @ ..] => format!("{coder}.mid.block_1.{}", rest.join(".")),
        [coder, "mid", "1", rest @ ..] => format!("{coder}.mid.attn_1.{}", rest.join(".")),
        [coder, "mid", "2", rest @ ..] => format!("{coder}.mid.block_2.{}", rest.join(".")),
        _ => parts.join("."),
    }
}

/// A tensor of the file that the model has no use for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Its name in the file.
    pub name: String,
    /// Why it is not loaded.
    pub reason: &'static str,
    /// How many values it holds.
    pub elements: usize,
}

/// The tensors of a checkpoint under their canonical names.
#[derive(Debug, Clone)]
pub struct Canonical {
    /// What the model is loaded from.
    pub tensors: Vec<LazyTensor>,
    /// What was left out, with reasons.
    pub dropped: Vec<Dropped>,
}

/// Translates the tensors of a file, joining thirds and restoring leading dimensions.
pub(crate) fn canonical(tensors: &[LazyTensor], naming: Naming) -> Canonical {
    let mut result = Canonical { tensors: Vec::with_capacity(tensors.len()), dropped: Vec::new() };
    let mut thirds: HashMap<String, [Option<LazyTensor>; 3]> = HashMap::new();
    let mut rest = Vec::new();
    for tensor in tensors {
        let tensor = tensor.clone();
        match import(&tensor.name, naming) {
            Import::Whole(name) => result.tensors.push(lazy::renamed(tensor, name)),
            Import::Unsqueeze(name) => {
                let shape = std::iter::once(1).chain(tensor.shape.to_vec()).collect();
                result.tensors.push(lazy::renamed(lazy::reshaped(tensor, shape), name));
            }
            Import::Third(name, third) => {
                let group = thirds.entry(name.clone()).or_default();
                // Two names for one third (an early one and today's): neither may win silently.
                rest.extend(group[third].replace(tensor));
                if group.iter().all(Option::is_some) {
                    let parts = group.iter_mut().filter_map(Option::take).collect();
                    thirds.remove(&name);
                    join(name, parts, &mut result.tensors);
                }
            }
            Import::Drop(reason) => {
                let elements = tensor.shape.to_vec().iter().product();
                result.dropped.push(Dropped { name: tensor.name, reason, elements });
            }
        }
    }
    // What is left over or doubled keeps its file names; the strict comparison reports it.
    rest.extend(thirds.into_values().flatten().flatten());
    rest.sort_by(|a, b| a.name.cmp(&b.name));
    result.tensors.extend(rest);
    result
}

/// Joins q, k and v; parts that do not fit together stay apart, for the report to name them.
fn join(name: String, parts: Vec<LazyTensor>, target: &mut Vec<LazyTensor>) {
    match lazy::concat(name, parts.clone()) {
        Some(joined) if parts.iter().all(|part| part.shape == parts[0].shape) => {
            target.push(joined);
        }
        _ => target.extend(parts),
    }
}

/// Translates a canonical tensor for a file of the given naming.
///
/// `Ok` is what to write (nothing for a drop); `Err` says what is wrong with the tensor.
pub(crate) fn exported(
    tensor: LazyTensor,
    naming: Naming,
) -> Result<Vec<LazyTensor>, &'static str> {
    match export(&tensor.name, naming).ok_or("its name is not a canonical Janus name")? {
        Export::Whole(name) => Ok(vec![lazy::renamed(tensor, name)]),
        Export::Drop(_) => Ok(Vec::new()),
        Export::Squeeze(name) => {
            let shape = tensor.shape.to_vec();
            let [1, rest @ ..] = shape.as_slice() else {
                return Err("its leading dimension is not 1");
            };
            let rest = rest.to_vec();
            Ok(vec![lazy::renamed(lazy::reshaped(tensor, rest), name)])
        }
        Export::Thirds(names) => {
            let height = tensor.shape.to_vec().first().copied().unwrap_or(0);
            if height == 0 || height % 3 != 0 {
                return Err("it cannot be split into query, key and value");
            }
            let third = height / 3;
            let part = |(i, name)| lazy::rows(&tensor, name, i * third..(i + 1) * third);
            let parts: Option<Vec<_>> = names.into_iter().enumerate().map(part).collect();
            parts.ok_or("it cannot be split into query, key and value")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use burn::tensor::{Bytes, DType};

    use super::*;
    use crate::checkpoint::shapes;

    type Shapes = BTreeMap<String, Vec<usize>>;

    fn export_all(original: &Shapes, naming: Naming) -> Shapes {
        let mut exported = Shapes::new();
        for (name, shape) in original {
            match export(name, naming).unwrap() {
                Export::Whole(name) => drop(exported.insert(name, shape.clone())),
                Export::Squeeze(name) => drop(exported.insert(name, shape[1..].to_vec())),
                Export::Thirds(names) => {
                    let mut third = shape.clone();
                    third[0] /= 3;
                    exported.extend(names.map(|name| (name, third.clone())));
                }
                Export::Drop(_) => {}
            }
        }
        exported
    }

    #[test]
    fn original_names_become_the_hugging_face_list() {
        for size in [shapes::PRO_1B, shapes::PRO_7B] {
            let original = shapes::original(&size).into_iter().collect();
            let expected: Shapes = shapes::hugging_face(&size).into_iter().collect();
            assert_eq!(export_all(&original, Naming::HuggingFace), expected);
        }
    }

    #[test]
    fn names_survive_the_round_trip() {
        let original: Shapes = shapes::original(&shapes::PRO_1B).into_iter().collect();
        let kept: BTreeSet<_> =
            original.keys().filter(|name| drop_reason(name).is_none()).cloned().collect();
        assert_eq!((original.len(), kept.len()), (882, 868));
        for naming in [Naming::HuggingFace, Naming::HuggingFaceLegacy] {
            let exported = export_all(&original, naming);
            assert_eq!(exported.len(), 964);
            assert_eq!(Naming::detect(exported.keys().map(String::as_str)), naming);
            let back: BTreeSet<_> = exported
                .keys()
                .map(|name| match import(name, naming) {
                    Import::Whole(name) | Import::Unsqueeze(name) | Import::Third(name, _) => name,
                    Import::Drop(reason) => panic!("{name} dropped: {reason}"),
                })
                .collect();
            assert_eq!(back, kept);
        }
        assert_eq!(Naming::detect(original.keys().map(String::as_str)), Naming::Original);
    }

    #[test]
    fn deeper_aligners_count_linears() {
        for (original, hf) in [("0", "fc1"), ("2", "hidden_layers.0"), ("6", "hidden_layers.2")] {
            let (original, hf) =
                (format!("aligner.layers.{original}.bias"), format!("model.aligner.{hf}.bias"));
            assert_eq!(import(&hf, Naming::HuggingFace), Import::Whole(original.clone()));
            assert_eq!(export(&original, Naming::HuggingFace), Some(Export::Whole(hf)));
        }
        assert_eq!(export("aligner.layers.1.bias", Naming::HuggingFace), None);
    }

    #[test]
    fn drops_have_reasons() {
        let reason = |name, naming| match import(name, naming) {
            Import::Drop(reason) => reason,
            other => panic!("{other:?}"),
        };
        let original = Naming::Original;
        assert_eq!(reason("vision_model.vision_tower.attn_pool.q.bias", original), POOL);
        assert_eq!(reason("gen_vision_model.quantize.codebook_used", original), USAGE);
        let inv_freq = "language_model.model.layers.0.self_attn.rotary_emb.inv_freq";
        assert_eq!(reason(inv_freq, original), ROPE);
        let hf = Naming::HuggingFace;
        assert_eq!(reason("model.language_model.rotary_emb.inv_freq", hf), ROPE);
        assert_eq!(reason("model.vision_model.embeddings.position_ids", hf), POSITIONS);
        assert_eq!(reason("model.vision_model.head.probe", hf), POOL);
    }

    fn tensor(name: &str, shape: Vec<usize>, first: u8) -> LazyTensor {
        let length: usize = shape.iter().product();
        let bytes = (0..length as u8).map(|i| first + i).collect();
        LazyTensor::new(name.into(), DType::U8, shape, None, Bytes::from_bytes_vec(bytes))
    }

    #[test]
    fn thirds_are_joined_in_order_and_cut_again() {
        let prefix = "model.vision_model.encoder.layers.3.self_attn";
        let part =
            |name: &str, first| tensor(&format!("{prefix}.{name}.weight"), vec![2, 2], first);
        // The order in the file must not matter.
        let parts = [part("v_proj", 8), part("q_proj", 0), part("k_proj", 4)];
        let canonical = canonical(&parts, Naming::HuggingFace);
        let [joined] = canonical.tensors.as_slice() else { panic!("{canonical:?}") };
        assert_eq!(joined.name, "vision_model.vision_tower.blocks.3.attn.qkv.weight");
        assert_eq!(joined.shape.to_vec(), [6, 2]);
        let bytes: Vec<u8> = (0..12).collect();
        assert_eq!(&joined.to_bytes().unwrap()[..], bytes);
        let cut = exported(joined.clone(), Naming::HuggingFace).unwrap();
        for (cut, expected) in cut.iter().zip([&parts[1], &parts[2], &parts[0]]) {
            assert_eq!((&cut.name, &cut.shape), (&expected.name, &expected.shape));
            assert_eq!(&cut.to_bytes().unwrap()[..], &expected.to_bytes().unwrap()[..]);
        }
    }

    #[test]
    fn a_third_under_two_names_is_reported() {
        let prefix = "vision_model.encoder.layers.3.self_attn";
        let part = |outer: &str, name: &str| {
            tensor(&format!("{outer}{prefix}.{name}.weight"), vec![2, 2], 0)
        };
        // Two of one kind before the set is complete, and after.
        let before = ["model.", "", "", ""].map(str::to_owned);
        let after = ["", "", "", "model."].map(str::to_owned);
        for (outer, names) in [
            (before, ["q_proj", "q_proj", "k_proj", "v_proj"]),
            (after, ["q_proj", "k_proj", "v_proj", "q_proj"]),
        ] {
            let parts: Vec<_> =
                outer.iter().zip(names).map(|(outer, name)| part(outer, name)).collect();
            let found: Vec<_> = canonical(&parts, Naming::HuggingFace)
                .tensors
                .into_iter()
                .map(|tensor| tensor.name)
                .collect();
            let extra = format!("model.{prefix}.q_proj.weight");
            let joined = "vision_model.vision_tower.blocks.3.attn.qkv.weight".to_owned();
            assert_eq!(found, [joined, extra]);
        }
    }

    #[test]
    fn incomplete_thirds_keep_their_names() {
        let name = "model.vision_model.encoder.layers.0.self_attn.q_proj.bias";
        let canonical = canonical(&[tensor(name, vec![2], 0)], Naming::HuggingFace);
        assert_eq!(canonical.tensors[0].name, name);
    }
}
