//! `janus inspect`: what the folder of a model or an adapter holds, and whether it is whole. Only headers are read, and a
//! sample of each tensor for the fingerprint.

mod adapter;

use std::collections::BTreeMap;
use std::fmt::Write;

use janus_model::JanusConfig;
use janus_model::adapters::is_adapter_folder;
use janus_model::checkpoint::{
    CheckpointError, Difference, Dropped, Fingerprint, Manifest, Mismatch, Naming, check_tensors,
};
use janus_model::config::Dialect;
use janus_model::processor::{ChatStyle, SpecialIds};
use serde_json::{Value, json};

use crate::args::{Against, InspectArgs};
use crate::choice::Choice;
use crate::device;
use crate::folder::{Component, Folder, components, elements};
use crate::report::{self, Failure, Verdict};
use crate::units::{count, plural, size};

/// Differences shown per list in text; JSON has all of them.
const SHOWN: usize = 20;

/// Runs the command.
pub fn run(args: &InspectArgs) -> Result<Verdict, Failure> {
    if !args.model.exists() {
        let name = args.model.to_string_lossy().to_ascii_lowercase();
        if let Some(config) = JanusConfig::preset(&name) {
            return architecture(&name, &config, args.json);
        }
    }
    let limits = args.limits.limits();
    if is_adapter_folder(&args.model) && !args.model.join("config.json").exists() {
        return adapter::run(args, &limits);
    }
    let choice = Choice::find(&args.model, &limits)?;
    if !choice.adapters.is_empty() {
        report::note("this run trains an adapter; this is the model that it is for");
    }
    let folder = Folder::open(&choice.base, &limits)?;
    let findings = Findings::new(&folder, args.against)?;
    if args.json {
        report::print_json(&as_json(args, &folder, &findings))?;
    } else {
        report::print(&as_text(args, &folder, &findings))?;
    }
    if args.check_tensors {
        check_tensors(&folder.canonical.tensors)?;
    }
    Ok(if findings.whole(&folder) { Verdict::Yes } else { Verdict::No })
}

/// What is known beyond the weights themselves.
struct Findings {
    /// From the tokenizer, if there is one; else why it cannot be used.
    tokens: Result<Option<SpecialIds>, String>,
    official: Option<Official>,
    /// The same for the same weights in any format.
    fingerprint: Fingerprint,
    notes: Vec<String>,
}

/// A comparison with a published checkpoint.
struct Official {
    name: String,
    differences: Vec<Difference>,
}

impl Findings {
    fn new(folder: &Folder, against: Against) -> Result<Self, Failure> {
        let mut notes = Vec::new();
        let official = official(folder, against, &mut notes)?;
        let processor = folder.processor();
        if matches!(processor, Ok(None)) {
            notes.push(
                "no tokenizer.json: enough for `convert`, not for questions or pictures".into(),
            );
        }
        if let Ok(Some(processor)) = &processor
            && processor.style == ChatStyle::Janus1_3b
        {
            notes.push("prompts are written as Janus-1.3B expects them, not as Janus-Pro".into());
        }
        let tokens = match processor {
            Ok(processor) => Ok(processor.map(|processor| *processor.tokenizer.special())),
            Err(error) => Err(report::one_line(&error)),
        };
        let dialects = (folder.dialect, folder.checkpoint.naming);
        if !matches!(
            dialects,
            (Dialect::Original, Naming::Original)
                | (Dialect::HuggingFace, Naming::HuggingFace | Naming::HuggingFaceLegacy)
        ) {
            notes.push(
                "config.json and tensor names are of different dialects; janus reads both".into(),
            );
        }
        let fingerprint = folder.checkpoint.fingerprint(&folder.config)?;
        Ok(Self { tokens, official, fingerprint, notes })
    }

    fn whole(&self, folder: &Folder) -> bool {
        let same = self.official.as_ref().is_none_or(|official| official.differences.is_empty());
        folder.mismatch.is_none() && self.tokens.is_ok() && same
    }
}

fn official(
    folder: &Folder,
    against: Against,
    notes: &mut Vec<String>,
) -> Result<Option<Official>, CheckpointError> {
    let size = match against {
        Against::Auto => {
            let found = Manifest::identify(&folder.checkpoint);
            return Ok(found.map(|m| Official { name: m.name, differences: Vec::new() }));
        }
        Against::Pro1b => "janus-pro-1b",
        Against::Pro7b => "janus-pro-7b",
    };
    let name = match folder.checkpoint.naming {
        Naming::Original => size.to_owned(),
        Naming::HuggingFace => format!("{size}-hf"),
        Naming::HuggingFaceLegacy => {
            notes.push(format!(
                "tensor names of early Hugging Face conversions cannot be compared with {size}; \
                 convert the folder first"
            ));
            return Ok(None);
        }
    };
    let manifest = Manifest::builtin(&name)?;
    let mut differences = manifest.compare(&folder.checkpoint);
    differences.retain(|difference| matters(difference, &folder.canonical.dropped));
    Ok(Some(Official { name, differences }))
}

/// Number formats may differ (converted copies), and so may tensors that are never loaded.
fn matters(difference: &Difference, dropped: &[Dropped]) -> bool {
    match difference {
        Difference::Dtype { .. } => false,
        Difference::Shape { .. } => true,
        Difference::Missing { name, .. } => {
            janus_model::checkpoint::keys::drop_reason(name).is_none()
        }
        Difference::Unexpected { name, .. } => !dropped.iter().any(|d| d.name == *name),
    }
}

// --- JSON ---------------------------------------------------------------------------------------

fn as_json(args: &InspectArgs, folder: &Folder, findings: &Findings) -> Value {
    let checkpoint = &folder.checkpoint;
    let files: Vec<Value> = checkpoint
        .files
        .iter()
        .map(|f| json!({"name": f.name, "bytes": f.bytes, "format": f.format.to_string()}))
        .collect();
    let dropped: Vec<Value> = folder
        .canonical
        .dropped
        .iter()
        .map(|d| json!({"name": d.name, "elements": d.elements, "reason": d.reason}))
        .collect();
    let none = Mismatch::default();
    let mismatch = folder.mismatch.as_deref().unwrap_or(&none);
    let named = |list: &[(String, Vec<usize>)]| -> Vec<Value> {
        list.iter().map(|(name, shape)| json!({"name": name, "shape": shape})).collect()
    };
    let shapes: Vec<Value> = mismatch
        .shape
        .iter()
        .map(|d| {
            json!({"name": d.name, "expected": d.expected, "found": d.found,
                   "transposed": d.is_transposed()})
        })
        .collect();
    json!({
        "path": args.model, "kind": "checkpoint", "ok": findings.whole(folder),
        "dialect": dialect(folder.dialect), "naming": naming(checkpoint.naming),
        "files": files, "dtypes": checkpoint.dtypes(),
        "tensors": checkpoint.raw().len(),
        "elements": checkpoint.raw().iter().map(elements).sum::<usize>(),
        "components": components_json(&folder.components()),
        "dropped": dropped,
        "missing": named(&mismatch.missing), "unused": named(&mismatch.unused),
        "mis_shaped": shapes, "hint": folder.hint(),
        "config": config_json(&folder.config),
        "tokens": findings.tokens.as_ref().ok().and_then(|ids| ids.as_ref()).map(tokens_json),
        "processor_problem": findings.tokens.as_ref().err(),
        "official": findings.official.as_ref().map(|official| {
            let differences: Vec<String> =
                official.differences.iter().map(ToString::to_string).collect();
            json!({"name": official.name, "same": differences.is_empty(), "differences": differences})
        }),
        "fingerprint": findings.fingerprint.to_string(),
        "notes": findings.notes,
    })
}

fn components_json(parts: &[Component]) -> Vec<Value> {
    let part = |p: &Component| json!({"name": p.name, "tensors": p.tensors, "elements": p.elements, "dropped": p.dropped});
    parts.iter().map(part).collect()
}

fn config_json(config: &JanusConfig) -> Value {
    let (llm, vision, vq) = (&config.language, &config.vision, &config.gen_vision);
    json!({
        "language": {
            "layers": llm.num_hidden_layers, "width": llm.hidden_size,
            "inner_width": llm.intermediate_size, "heads": llm.num_attention_heads,
            "kv_heads": llm.num_key_value_heads, "head_width": llm.head_dim,
            "vocabulary": llm.vocab_size, "context": llm.max_position_embeddings,
            "rope_theta": llm.rope_theta, "norm_eps": llm.rms_norm_eps,
            "tied_head": llm.tie_word_embeddings,
        },
        "vision": {
            "layers": vision.num_hidden_layers, "width": vision.hidden_size,
            "inner_width": vision.intermediate_size, "heads": vision.num_attention_heads,
            "image": vision.image_size, "patch": vision.patch_size, "tokens": config.image_tokens(),
            "norm_eps": vision.layer_norm_eps,
        },
        "image_tokenizer": {
            "image": vq.image_size, "codes": vq.num_embeddings, "code_width": vq.embed_dim,
            "channels": vq.base_channels, "multipliers": vq.channel_multiplier,
            "res_blocks": vq.num_res_blocks, "latent_channels": vq.latent_channels,
            "grid": vq.grid(), "codes_per_image": config.image_codes(),
        },
        "aligner_depth": config.aligner.depth, "gen_aligner_depth": config.gen_aligner.depth,
        "gen_head_width": config.gen_head.embed_dim,
    })
}

fn tokens_json(ids: &SpecialIds) -> Value {
    json!({
        "bos": ids.bos, "eos": ids.eos, "pad": ids.pad,
        "begin_of_image": ids.begin_of_image, "end_of_image": ids.end_of_image,
        "image_placeholder": ids.image_placeholder,
        "user": ids.user, "assistant": ids.assistant,
    })
}

fn dialect(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Original => "original",
        Dialect::HuggingFace => "huggingface",
    }
}

fn naming(naming: Naming) -> &'static str {
    match naming {
        Naming::Original => "original",
        Naming::HuggingFace => "huggingface",
        Naming::HuggingFaceLegacy => "huggingface-legacy",
    }
}

// --- text ---------------------------------------------------------------------------------------

/// Lines of `label  value`, labels padded.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, label: &str, value: impl AsRef<str>) {
        let _ = writeln!(self.0, "{label:<14} {}", value.as_ref());
    }
}

fn as_text(args: &InspectArgs, folder: &Folder, findings: &Findings) -> String {
    let checkpoint = &folder.checkpoint;
    let mut lines = Lines::default();
    lines.add("model", args.model.display().to_string());
    lines.add("config", dialect(folder.dialect));
    lines.add("names", naming(checkpoint.naming));
    for file in &checkpoint.files {
        lines.add("file", format!("{}, {}, {}", file.name, size(file.bytes), file.format));
    }
    let dtypes: Vec<String> = checkpoint
        .dtypes()
        .iter()
        .map(|(dtype, n)| format!("{dtype} ({} values)", count(*n)))
        .collect();
    lines.add("format", dtypes.join(", "));
    lines.0.push('\n');
    component_table(&mut lines.0, &folder.components());
    let in_files = checkpoint.raw().len();
    let canonical = folder.canonical.tensors.len() + folder.canonical.dropped.len();
    if in_files != canonical {
        let _ = writeln!(
            lines.0,
            "({} in the files, where some are split)",
            plural(in_files, "tensor")
        );
    }
    lines.0.push('\n');
    for (reason, (tensors, values)) in dropped_by_reason(&folder.canonical.dropped) {
        let values = count(values);
        lines
            .add("not loaded", format!("{}, {values} values: {reason}", plural(tensors, "tensor")));
    }
    config_lines(&mut lines, &folder.config);
    match &findings.tokens {
        Ok(Some(ids)) => lines.add("tokens", tokens_text(ids)),
        Ok(None) => {}
        Err(problem) => lines.add("processor", format!("cannot be used: {problem}")),
    }
    lines.add("fingerprint", findings.fingerprint.to_string());
    if let Some(official) = &findings.official {
        official_lines(&mut lines, official);
    }
    for note in &findings.notes {
        lines.add("note", note);
    }
    match &folder.mismatch {
        None => lines
            .add("weights", "complete: every tensor the model needs, in its shape, and no other"),
        Some(mismatch) => mismatch_lines(&mut lines, mismatch, folder.hint()),
    }
    lines.0
}

fn component_table(text: &mut String, parts: &[Component]) {
    let _ = writeln!(text, "{:<18} {:>8} {:>15}", "component", "tensors", "values");
    let (mut tensors, mut values) = (0, 0);
    for part in parts {
        let dropped = match part.dropped {
            0 => String::new(),
            n => format!("  ({} not loaded)", count(n)),
        };
        let _ = writeln!(
            text,
            "{:<18} {:>8} {:>15}{dropped}",
            part.name,
            count(part.tensors),
            count(part.elements)
        );
        tensors += part.tensors;
        values += part.elements;
    }
    let _ = writeln!(text, "{:<18} {:>8} {:>15}", "total", count(tensors), count(values));
}

fn dropped_by_reason(dropped: &[Dropped]) -> BTreeMap<&'static str, (usize, usize)> {
    let mut reasons = BTreeMap::new();
    for tensor in dropped {
        let (tensors, values): &mut (usize, usize) = reasons.entry(tensor.reason).or_default();
        *tensors += 1;
        *values += tensor.elements;
    }
    reasons
}

fn config_lines(lines: &mut Lines, config: &JanusConfig) {
    let (llm, vision, vq) = (&config.language, &config.vision, &config.gen_vision);
    lines.add(
        "language",
        format!(
            "{} layers of width {}, {} heads ({} for keys and values), inner width {}, \
             vocabulary {}, context {}, rope base {}",
            llm.num_hidden_layers,
            llm.hidden_size,
            llm.num_attention_heads,
            llm.num_key_value_heads,
            llm.intermediate_size,
            llm.vocab_size,
            llm.max_position_embeddings,
            llm.rope_theta
        ),
    );
    lines.add(
        "vision",
        format!(
            "{} layers of width {}, images of {} pixels, patches of {}: {} tokens per image",
            vision.num_hidden_layers,
            vision.hidden_size,
            vision.image_size,
            vision.patch_size,
            config.image_tokens()
        ),
    );
    lines.add(
        "drawing",
        format!(
            "{} codes of width {}, {} per image ({}x{}), images of {} pixels",
            vq.num_embeddings,
            vq.embed_dim,
            config.image_codes(),
            vq.grid(),
            vq.grid(),
            vq.image_size
        ),
    );
}

fn tokens_text(ids: &SpecialIds) -> String {
    let role = |id: Option<u32>| id.map_or_else(|| "absent".to_owned(), |id| id.to_string());
    format!(
        "begin {}, end {}, padding {}, image {} ... {} with place {}, user {}, assistant {}",
        ids.bos,
        ids.eos,
        ids.pad,
        ids.begin_of_image,
        ids.end_of_image,
        ids.image_placeholder,
        role(ids.user),
        role(ids.assistant)
    )
}

fn official_lines(lines: &mut Lines, official: &Official) {
    let differences = &official.differences;
    if differences.is_empty() {
        lines.add("published as", format!("{}: same names and shapes", official.name));
        return;
    }
    let number = plural(differences.len(), "difference");
    lines.add("published as", format!("not {}: {number}", official.name));
    for difference in differences.iter().take(SHOWN) {
        let _ = writeln!(lines.0, "  {difference}");
    }
    if differences.len() > SHOWN {
        let _ = writeln!(lines.0, "  … and {} more", differences.len() - SHOWN);
    }
}

fn mismatch_lines(lines: &mut Lines, mismatch: &Mismatch, hint: Option<String>) {
    lines.add("weights", mismatch.to_string());
    if let Some(hint) = hint {
        lines.add("hint", hint);
    }
}

// --- presets ------------------------------------------------------------------------------------

fn architecture(name: &str, config: &JanusConfig, json: bool) -> Result<Verdict, Failure> {
    let expected = config.expected_tensors(&device::idle());
    let of = |shape: &[usize]| shape.iter().product::<usize>();
    let parts = components(expected.iter().map(|(name, shape)| (name.as_str(), of(shape), false)));
    if json {
        let elements: usize = parts.iter().map(|part| part.elements).sum();
        report::print_json(&json!({
            "preset": name, "kind": "preset", "ok": true,
            "tensors": expected.len(), "elements": elements,
            "components": components_json(&parts), "config": config_json(config),
        }))?;
    } else {
        let mut lines = Lines::default();
        lines.add("architecture", format!("{name}, without weights"));
        lines.0.push('\n');
        component_table(&mut lines.0, &parts);
        lines.0.push('\n');
        config_lines(&mut lines, config);
        report::print(&lines.0)?;
    }
    Ok(Verdict::Yes)
}
