//! Low-rank adapters (LoRA) on the linear layers of a [`Janus`].
//!
//! An adapter is part of its layer, [`Linear::lora`], so forward passes and training need not know
//! of it. Its factors are parameters named `<layer>.lora.a` and `<layer>.lora.b`; a checkpoint
//! never holds them.
//!
//! On disk an adapter is a folder as Hugging Face's PEFT has it, read and written by PEFT as well:
//!
//! ```text
//! adapter_config.json        ─ config ─┐
//! adapter_model.safetensors  ─ files ──┴─► AdapterFiles ─ attach ─► Linear.lora ─ save ─► folder
//! ```
//! [`AdapterFiles::open`] looks at the folder alone; [`Janus::load_adapter`] and
//! [`Janus::add_adapter`] put it into a model; [`Janus::save_adapter`] writes what is there;
//! [`Janus::merge_adapters`] and [`merged`] make it part of the weights.

mod attach;
mod config;
mod error;
mod factors;
mod files;
mod merge;
mod save;

pub use attach::{AdapterReport, AttachedLayer};
pub use config::AdapterConfig;
pub use error::{AdapterError, Misfit};
pub use files::{AdapterFiles, Pair, is_adapter_folder};
pub use merge::merged;
pub use save::AdapterSave;

use crate::janus::Janus;
use crate::linear::Linear;

/// Whether a parameter, by its name or path, belongs to an adapter.
pub fn is_adapter(name: &str) -> bool {
    name.ends_with(".lora.a") || name.ends_with(".lora.b")
}

impl Janus {
    /// Every linear layer that was loaded, by its canonical name, such as
    /// `language_model.model.layers.0.self_attn.q_proj`; those of the image tokenizer are
    /// convolutions.
    pub fn linears_mut(&mut self) -> Vec<(String, &mut Linear)> {
        let mut found = Vec::new();
        if let Some(tower) = &mut self.vision_model {
            for (i, block) in tower.vision_tower.blocks.iter_mut().enumerate() {
                let (attn, mlp) = (&mut block.attn, &mut block.mlp);
                for (name, linear) in [
                    ("attn.qkv", &mut attn.qkv),
                    ("attn.proj", &mut attn.proj),
                    ("mlp.fc1", &mut mlp.fc1),
                    ("mlp.fc2", &mut mlp.fc2),
                ] {
                    found.push((format!("vision_model.vision_tower.blocks.{i}.{name}"), linear));
                }
            }
        }
        for (part, projector) in
            [("aligner", &mut self.aligner), ("gen_aligner", &mut self.gen_aligner)]
        {
            let layers = projector.iter_mut().flat_map(|projector| &mut projector.layers);
            // The checkpoint counts the activations between the layers, too.
            let named = |(i, linear)| (format!("{part}.layers.{}", 2 * i), linear);
            found.extend(layers.enumerate().map(named));
        }
        if let Some(head) = &mut self.gen_head {
            found.push(("gen_head.output_mlp_projector".into(), &mut head.output_mlp_projector));
            found.push(("gen_head.vision_head".into(), &mut head.vision_head));
        }
        for (i, layer) in self.language_model.model.layers.iter_mut().enumerate() {
            let (attn, mlp) = (&mut layer.self_attn, &mut layer.mlp);
            for (name, linear) in [
                ("self_attn.q_proj", &mut attn.q_proj),
                ("self_attn.k_proj", &mut attn.k_proj),
                ("self_attn.v_proj", &mut attn.v_proj),
                ("self_attn.o_proj", &mut attn.o_proj),
                ("mlp.gate_proj", &mut mlp.gate_proj),
                ("mlp.up_proj", &mut mlp.up_proj),
                ("mlp.down_proj", &mut mlp.down_proj),
            ] {
                found.push((format!("language_model.model.layers.{i}.{name}"), linear));
            }
        }
        if let Some(head) = &mut self.language_model.lm_head {
            found.push(("language_model.lm_head".into(), head));
        }
        found
    }
}
