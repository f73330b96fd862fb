//! How much arithmetic a request takes, from sizes alone: one for every multiplication and one for
//! every addition of products, as others count it. Norms, softmax and the like are left out.

use janus_model::Parts;
use janus_model::config::JanusConfig;
use janus_model::projector::ProjectorConfig;

use crate::memory::{Elements, elements};

/// One picture through the understanding encoder and the aligner behind it.
pub fn vision(config: &JanusConfig) -> f64 {
    let (vit, tokens) = (&config.vision, config.vision.num_tokens());
    let width = vit.hidden_size;
    let block = 4 * width * width + 2 * width * vit.intermediate_size;
    let patches = 3 * vit.patch_size.pow(2) * width;
    let met = vit.num_hidden_layers * (block + 2 * tokens * width) + patches;
    twice(tokens, met) + twice(tokens, projector(&config.aligner))
}

/// So many new tokens of each of some rows through the decoder, without a head, behind `past` others;
/// every token meets those it sees.
pub fn language(config: &JanusConfig, rows: usize, past: usize, tokens: usize) -> f64 {
    let llm = &config.language;
    let attention = 2 * llm.num_hidden_layers * llm.num_attention_heads * llm.head_dim;
    let seen = tokens * past + tokens * (tokens + 1) / 2;
    let decoder = find(&elements(config, Parts::Generation), "language_model").decoder;
    twice(rows * tokens, decoder as usize) + twice(rows * seen, attention)
}

/// Some rows through the head of image codes.
pub fn image_head(config: &JanusConfig, rows: usize) -> f64 {
    let head = &config.gen_head;
    twice(rows, head.hidden_size * head.embed_dim + head.embed_dim * head.codes)
}

/// Codes of one picture to its pixels.
pub fn image_decoder(config: &JanusConfig) -> f64 {
    let vq = &config.gen_vision;
    let channels: Vec<usize> = vq.channel_multiplier.iter().map(|m| m * vq.base_channels).collect();
    let (first, deepest) = (channels[0], channels[channels.len() - 1]);
    let places = |level: usize| (vq.image_size >> level).pow(2);
    let last = channels.len() - 1;
    let same = |channels: usize| residual(channels, channels);
    let grid = places(last);
    let inner = vq.embed_dim * vq.latent_channels
        + conv(vq.latent_channels, deepest)
        + 2 * same(deepest)
        + attention(deepest, grid);
    let mut sum = twice(grid, inner) + twice(places(0), conv(first, 3));
    for (level, &here) in channels.iter().enumerate() {
        let below = channels.get(level + 1).copied();
        let mut met = residual(below.unwrap_or(here), here) + vq.num_res_blocks * same(here);
        match below {
            // Doubled into it.
            Some(below) => met += conv(below, below),
            None => met += (vq.num_res_blocks + 1) * attention(here, grid),
        }
        sum += twice(places(level), met);
    }
    sum
}

/// Weights of two 3×3 convolutions and the shortcut.
fn residual(input: usize, output: usize) -> usize {
    let shortcut = if input == output { 0 } else { input * output };
    conv(input, output) + conv(output, output) + shortcut
}

fn conv(input: usize, output: usize) -> usize {
    9 * input * output
}

/// What a place meets in attention over all of them.
fn attention(channels: usize, places: usize) -> usize {
    4 * channels * channels + 2 * places * channels
}

fn projector(config: &ProjectorConfig) -> usize {
    config.output_dim * (config.input_dim + config.depth.saturating_sub(1) * config.output_dim)
}

fn find(list: &[(&'static str, Elements)], name: &str) -> Elements {
    list.iter().find(|(part, _)| *part == name).map_or(Elements::default(), |(_, found)| *found)
}

/// A product and a sum for each of these numbers at so many places.
fn twice(places: usize, numbers: usize) -> f64 {
    2.0 * places as f64 * numbers as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against `torch.utils.flop_counter` of PyTorch 2.15 over the modules of transformers 5.23.
    #[test]
    fn counts_are_those_of_pytorch() {
        let (small, large) = (JanusConfig::pro_1b(), JanusConfig::pro_7b());
        assert_eq!(vision(&small), 388_660_985_856.0);
        assert_eq!(vision(&large), 405_572_419_584.0);
        assert_eq!(image_head(&small, 2), 150_994_944.0);
        assert_eq!(image_head(&large, 2), 335_544_320.0);
        assert_eq!(image_decoder(&small), 570_121_519_104.0);
        assert_eq!(language(&small, 2, 0, 1), 4_932_894_720.0);
        assert_eq!(language(&large, 2, 0, 1), 24_286_003_200.0);
    }

    #[test]
    fn tokens_meet_those_before_them() {
        let config = JanusConfig::pro_1b();
        let one_by_one: f64 = (0..7).map(|past| language(&config, 3, past, 1)).sum();
        assert_eq!(language(&config, 3, 0, 7), one_by_one);
        let after: f64 = (5..9).map(|past| language(&config, 1, past, 1)).sum();
        assert_eq!(language(&config, 1, 5, 4), after);
    }
}
