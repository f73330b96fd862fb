//! How many parameters each part of the model has, by the format they are kept in.

use burn::tensor::DType;
use janus_model::config::JanusConfig;
use janus_model::packed::Bits;
use janus_model::{Parts, Precision};

/// Parameters of one part, by the number format they are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elements {
    /// Matrices of linear layers and tables: [`Precision::weights`].
    pub matrices: u64,
    /// Matrices of the decoder's layers: likewise, or [`Precision::packed`].
    pub decoder: u64,
    /// Those of both heads: likewise, or 8 bits.
    pub heads: u64,
    /// Biases, the vision tower's convolution and positions: [`Precision::compute`].
    pub compute: u64,
    /// Norms and the codebook: f32.
    pub f32: u64,
    /// Convolutions of the image tokenizer: [`Precision::image_tokenizer`].
    pub image_tokenizer: u64,
}

impl Elements {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.matrices + self.decoder + self.heads + self.compute + self.f32 + self.image_tokenizer
    }

    /// Bytes they take.
    pub fn bytes(&self, precision: &Precision) -> u64 {
        self.matrices * size(precision.weights)
            + self
                .packed(precision)
                .unwrap_or((self.decoder + self.heads) * size(precision.weights))
            + self.compute * size(precision.compute)
            + self.f32 * size(DType::F32)
            + self.image_tokenizer * size(precision.image_tokenizer)
    }

    /// Bytes of what is rounded to a few bits, where it is.
    pub fn packed(&self, precision: &Precision) -> Option<u64> {
        let bits = precision.packed?;
        Some(bits.bytes(self.decoder) + Bits::Eight.bytes(self.heads))
    }

    /// The matrices as those of the decoder's layers.
    fn of_decoder(self) -> Self {
        Self { matrices: 0, decoder: self.matrices, ..self }
    }

    /// The matrices as those of heads.
    fn of_heads(self) -> Self {
        Self { matrices: 0, heads: self.matrices, ..self }
    }

    /// A linear layer.
    fn linear(input: usize, output: usize, bias: bool) -> Self {
        let compute = if bias { output as u64 } else { 0 };
        Self { matrices: (input * output) as u64, compute, ..Self::default() }
    }

    /// Scale and, where there is one, shift.
    fn norms(values: usize) -> Self {
        Self { f32: values as u64, ..Self::default() }
    }

    /// A square convolution of the image tokenizer with its bias.
    fn conv(side: usize, input: usize, output: usize) -> Self {
        let image_tokenizer = (side * side * input * output + output) as u64;
        Self { image_tokenizer, ..Self::default() }
    }

    fn times(self, n: usize) -> Self {
        let n = n as u64;
        Self {
            matrices: self.matrices * n,
            decoder: self.decoder * n,
            heads: self.heads * n,
            compute: self.compute * n,
            f32: self.f32 * n,
            image_tokenizer: self.image_tokenizer * n,
        }
    }
}

impl std::ops::Add for Elements {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            matrices: self.matrices + other.matrices,
            decoder: self.decoder + other.decoder,
            heads: self.heads + other.heads,
            compute: self.compute + other.compute,
            f32: self.f32 + other.f32,
            image_tokenizer: self.image_tokenizer + other.image_tokenizer,
        }
    }
}

/// Bytes of one element.
pub(super) fn size(dtype: DType) -> u64 {
    dtype.size() as u64
}

/// Parameters of every loaded part, named as in the checkpoint.
pub fn elements(config: &JanusConfig, parts: Parts) -> Vec<(&'static str, Elements)> {
    let understanding = parts != Parts::Generation;
    let generation = parts != Parts::Understanding;
    let mut list = vec![("language_model", language(config, understanding))];
    if understanding {
        list.push(("vision_model", vision(config)));
        list.push(("aligner", projector(&config.aligner)));
    }
    if generation {
        let (codes, width) = (config.gen_vision.num_embeddings, config.gen_vision.embed_dim);
        let head = &config.gen_head;
        list.push(("gen_vision_model", image_tokenizer(config)));
        list.push(("gen_aligner", projector(&config.gen_aligner)));
        list.push(("gen_embed", Elements::linear(width, codes, false)));
        list.push((
            "gen_head",
            (Elements::linear(head.hidden_size, head.embed_dim, true)
                + Elements::linear(head.embed_dim, head.codes, true))
            .of_heads(),
        ));
    }
    list
}

fn language(config: &JanusConfig, text_head: bool) -> Elements {
    let llm = &config.language;
    let width = llm.hidden_size;
    let linear = |input, output| Elements::linear(input, output, false);
    let (query, key) =
        (llm.num_attention_heads * llm.head_dim, llm.num_key_value_heads * llm.head_dim);
    let layer = linear(width, query).times(2) // q, o
        + linear(width, key).times(2)
        + linear(width, llm.intermediate_size).times(3)
        + Elements::norms(2 * width);
    let table = linear(width, llm.vocab_size);
    let head = if text_head { table.of_heads() } else { Elements::default() };
    layer.times(llm.num_hidden_layers).of_decoder() + table + head + Elements::norms(width)
}

fn vision(config: &JanusConfig) -> Elements {
    let vit = &config.vision;
    let width = vit.hidden_size;
    let linear = |input, output| Elements::linear(input, output, true);
    let block = linear(width, 3 * width)
        + linear(width, width)
        + linear(width, vit.intermediate_size)
        + linear(vit.intermediate_size, width)
        + Elements::norms(4 * width);
    let patches = 3 * vit.patch_size * vit.patch_size * width + width;
    let compute = (patches + vit.num_tokens() * width) as u64;
    block.times(vit.num_hidden_layers)
        + Elements { compute, ..Elements::default() }
        + Elements::norms(2 * width)
}

fn projector(config: &janus_model::projector::ProjectorConfig) -> Elements {
    let (input, output) = (config.input_dim, config.output_dim);
    Elements::linear(input, output, true)
        + Elements::linear(output, output, true).times(config.depth.saturating_sub(1))
}

/// The convolutional networks of `janus_model::vq`, walked from the highest resolution.
fn image_tokenizer(config: &JanusConfig) -> Elements {
    let vq = &config.gen_vision;
    let channels: Vec<usize> = vq.channel_multiplier.iter().map(|m| m * vq.base_channels).collect();
    let (first, deepest) = (channels[0], channels[channels.len() - 1]);
    let middle = residual(deepest, deepest).times(2) + attention(deepest);
    let mut sum = Elements::norms(vq.num_embeddings * vq.embed_dim)
        + Elements::conv(1, vq.latent_channels, vq.embed_dim)
        + Elements::conv(1, vq.embed_dim, vq.latent_channels)
        + middle.times(2)
        // Encoder, then decoder: outermost convolutions and the norm before the last.
        + Elements::conv(3, 3, vq.base_channels)
        + Elements::norms(2 * deepest)
        + Elements::conv(3, deepest, vq.latent_channels)
        + Elements::conv(3, vq.latent_channels, deepest)
        + Elements::norms(2 * first)
        + Elements::conv(3, first, 3);
    for (i, &here) in channels.iter().enumerate() {
        let above = if i == 0 { vq.base_channels } else { channels[i - 1] };
        let below = channels.get(i + 1).copied().unwrap_or(here);
        let same = residual(here, here);
        sum = sum
            + residual(above, here)
            + same.times(vq.num_res_blocks - 1)
            + residual(below, here)
            + same.times(vq.num_res_blocks);
        // Every level but the last is halved by the encoder; the decoder doubles into it.
        if i + 1 < channels.len() {
            sum = sum + Elements::conv(3, here, here) + Elements::conv(3, below, below);
        } else {
            sum = sum + attention(here).times(2 * vq.num_res_blocks + 1);
        }
    }
    sum
}

fn residual(input: usize, output: usize) -> Elements {
    let shortcut =
        if input == output { Elements::default() } else { Elements::conv(1, input, output) };
    Elements::norms(2 * input + 2 * output)
        + Elements::conv(3, input, output)
        + Elements::conv(3, output, output)
        + shortcut
}

fn attention(channels: usize) -> Elements {
    Elements::norms(2 * channels) + Elements::conv(1, channels, channels).times(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(list: &'a [(&str, Elements)], part: &str) -> &'a Elements {
        &list.iter().find(|(name, _)| *name == part).expect("a part of the model").1
    }

    #[test]
    fn the_published_sizes_have_the_published_counts() {
        // Element counts of the released state dicts, less the unused pooling head
        // (12,595,200) and the codebook's usage buffer (65,536).
        let expected = [
            (JanusConfig::pro_1b(), 2_089_297_547_u64, 1_652_656_128, 6_295_552, 37_767_168),
            (JanusConfig::pro_7b(), 7_420_434_059, 6_910_365_696, 20_979_712, 83_906_560),
        ];
        for (config, total, language, aligner, head) in expected {
            let list = elements(&config, Parts::All);
            let sum: u64 = list.iter().map(|(_, elements)| elements.total()).sum();
            assert_eq!(of(&list, "language_model").total(), language);
            assert_eq!(of(&list, "aligner").total(), aligner);
            assert_eq!(of(&list, "gen_head").total(), head);
            assert_eq!(of(&list, "vision_model").total(), 303_688_704);
            assert_eq!(of(&list, "gen_vision_model").total(), 71_948_939 - 65_536);
            assert_eq!(sum, total - 12_595_200 - 65_536);
        }
    }
}
