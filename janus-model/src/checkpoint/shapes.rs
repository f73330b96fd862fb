//! Names and shapes of the published checkpoints, from the tables of their architecture.
//!
//! Tests only: the source of `weights/manifests/`. Both namings are written out here on their own,
//! without [`super::keys`], so that translating one into the other tests that module.

/// The numbers in which 1B and 7B differ.
pub(crate) struct Size {
    width: usize,
    inner: usize,
    layers: usize,
}

pub(crate) const PRO_1B: Size = Size { width: 2048, inner: 5632, layers: 24 };
pub(crate) const PRO_7B: Size = Size { width: 4096, inner: 11008, layers: 30 };

/// SigLIP width, MLP width, blocks, patches.
const TOWER: (usize, usize, usize, usize) = (1024, 4096, 24, 576);
const TEXT_VOCABULARY: usize = 102_400;
const IMAGE_CODES: usize = 16_384;
const CODE_WIDTH: usize = 8;

type Shapes = Vec<(String, Vec<usize>)>;

struct List(Shapes);

impl List {
    fn one(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.push((name.into(), shape.to_vec()));
    }

    /// Weight of this shape and a bias of its first dimension.
    fn pair(&mut self, name: impl AsRef<str>, shape: &[usize]) {
        self.one(format!("{}.weight", name.as_ref()), shape);
        self.one(format!("{}.bias", name.as_ref()), &shape[..1]);
    }

    fn conv(&mut self, name: impl AsRef<str>, input: usize, output: usize, kernel: usize) {
        self.pair(name, &[output, input, kernel, kernel]);
    }
}

/// State dict of the original release.
pub(crate) fn original(size: &Size) -> Shapes {
    let (width, mlp, blocks, patches) = TOWER;
    let mut list = List(Vec::new());
    let tower = "vision_model.vision_tower";
    list.one(format!("{tower}.pos_embed"), &[1, patches, width]);
    list.pair(format!("{tower}.patch_embed.proj"), &[width, 3, 16, 16]);
    for i in 0..blocks {
        let block = format!("{tower}.blocks.{i}");
        list.pair(format!("{block}.norm1"), &[width]);
        list.pair(format!("{block}.attn.qkv"), &[3 * width, width]);
        list.pair(format!("{block}.attn.proj"), &[width, width]);
        list.pair(format!("{block}.norm2"), &[width]);
        list.pair(format!("{block}.mlp.fc1"), &[mlp, width]);
        list.pair(format!("{block}.mlp.fc2"), &[width, mlp]);
    }
    list.pair(format!("{tower}.norm"), &[width]);
    let pool = format!("{tower}.attn_pool");
    list.one(format!("{pool}.latent"), &[1, 1, width]);
    list.pair(format!("{pool}.q"), &[width, width]);
    list.pair(format!("{pool}.kv"), &[2 * width, width]);
    list.pair(format!("{pool}.proj"), &[width, width]);
    list.pair(format!("{pool}.norm"), &[width]);
    list.pair(format!("{pool}.mlp.fc1"), &[mlp, width]);
    list.pair(format!("{pool}.mlp.fc2"), &[width, mlp]);

    list.pair("aligner.layers.0", &[size.width, width]);
    list.pair("aligner.layers.2", &[size.width, size.width]);
    let names =
        Vq { root: "gen_vision_model", res: "res", ways: ["conv_blocks"; 2], mid: ["0", "1", "2"] };
    vq(&mut list, &names);
    list.one("gen_vision_model.quantize.codebook_used", &[65_536]);
    list.pair("gen_aligner.layers.0", &[size.width, CODE_WIDTH]);
    list.pair("gen_aligner.layers.2", &[size.width, size.width]);
    list.pair("gen_head.output_mlp_projector", &[size.width, size.width]);
    list.pair("gen_head.vision_head", &[IMAGE_CODES, size.width]);
    list.one("gen_embed.weight", &[IMAGE_CODES, CODE_WIDTH]);
    llama(&mut list, size, "language_model.model");
    list.one("language_model.lm_head.weight", &[TEXT_VOCABULARY, size.width]);
    list.0
}

/// State dict of the Hugging Face port.
pub(crate) fn hugging_face(size: &Size) -> Shapes {
    let (width, mlp, blocks, patches) = TOWER;
    let mut list = List(Vec::new());
    let tower = "model.vision_model";
    list.pair(format!("{tower}.embeddings.patch_embedding"), &[width, 3, 16, 16]);
    list.one(format!("{tower}.embeddings.position_embedding.weight"), &[patches, width]);
    for i in 0..blocks {
        let block = format!("{tower}.encoder.layers.{i}");
        list.pair(format!("{block}.layer_norm1"), &[width]);
        for part in ["q_proj", "k_proj", "v_proj", "projection_layer"] {
            list.pair(format!("{block}.self_attn.{part}"), &[width, width]);
        }
        list.pair(format!("{block}.layer_norm2"), &[width]);
        list.pair(format!("{block}.mlp.fc1"), &[mlp, width]);
        list.pair(format!("{block}.mlp.fc2"), &[width, mlp]);
    }
    list.pair(format!("{tower}.post_layernorm"), &[width]);
    list.pair("model.aligner.fc1", &[size.width, width]);
    list.pair("model.aligner.hidden_layers.0", &[size.width, size.width]);
    let names = Vq {
        root: "model.vqmodel",
        res: "block",
        ways: ["down", "up"],
        mid: ["block_1", "attn_1", "block_2"],
    };
    vq(&mut list, &names);
    list.one("model.generation_embeddings.weight", &[IMAGE_CODES, CODE_WIDTH]);
    list.pair("model.generation_aligner.fc1", &[size.width, CODE_WIDTH]);
    list.pair("model.generation_aligner.hidden_layers.0", &[size.width, size.width]);
    list.pair("model.generation_head.proj_out", &[size.width, size.width]);
    list.pair("model.generation_head.vision_head", &[IMAGE_CODES, size.width]);
    llama(&mut list, size, "model.language_model");
    list.one("lm_head.weight", &[TEXT_VOCABULARY, size.width]);
    list.0
}

fn llama(list: &mut List, size: &Size, root: &str) {
    let Size { width, inner, layers } = *size;
    list.one(format!("{root}.embed_tokens.weight"), &[TEXT_VOCABULARY, width]);
    for i in 0..layers {
        let layer = format!("{root}.layers.{i}");
        for part in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            list.one(format!("{layer}.self_attn.{part}.weight"), &[width, width]);
        }
        list.one(format!("{layer}.mlp.gate_proj.weight"), &[inner, width]);
        list.one(format!("{layer}.mlp.up_proj.weight"), &[inner, width]);
        list.one(format!("{layer}.mlp.down_proj.weight"), &[width, inner]);
        list.one(format!("{layer}.input_layernorm.weight"), &[width]);
        list.one(format!("{layer}.post_attention_layernorm.weight"), &[width]);
    }
    list.one(format!("{root}.norm.weight"), &[width]);
}

/// What the two namings of the image tokenizer call the same things.
struct Vq {
    root: &'static str,
    res: &'static str,
    /// Levels of encoder and decoder.
    ways: [&'static str; 2],
    /// The three middle blocks.
    mid: [&'static str; 3],
}

fn vq(list: &mut List, names: &Vq) {
    let root = names.root;
    let encoder = format!("{root}.encoder");
    list.conv(format!("{encoder}.conv_in"), 3, 128, 3);
    let levels = [(128, 128), (128, 128), (128, 256), (256, 256), (256, 512)];
    for (l, (input, output)) in levels.into_iter().enumerate() {
        let level = format!("{encoder}.{}.{l}", names.ways[0]);
        residuals(list, &format!("{level}.{}", names.res), 2, input, output);
        if l == 4 {
            (0..2).for_each(|j| attention(list, &format!("{level}.attn.{j}"), 512));
        } else {
            list.conv(format!("{level}.downsample.conv"), output, output, 3);
        }
    }
    middle(list, &encoder, names);
    list.pair(format!("{encoder}.norm_out"), &[512]);
    list.conv(format!("{encoder}.conv_out"), 512, 256, 3);

    let decoder = format!("{root}.decoder");
    list.conv(format!("{decoder}.conv_in"), 256, 512, 3);
    middle(list, &decoder, names);
    let levels = [(512, 512), (512, 256), (256, 256), (256, 128), (128, 128)];
    for (l, (input, output)) in levels.into_iter().enumerate() {
        let level = format!("{decoder}.{}.{l}", names.ways[1]);
        residuals(list, &format!("{level}.{}", names.res), 3, input, output);
        if l == 0 {
            (0..3).for_each(|j| attention(list, &format!("{level}.attn.{j}"), 512));
        }
        if l < 4 {
            list.conv(format!("{level}.upsample.conv"), output, output, 3);
        }
    }
    list.pair(format!("{decoder}.norm_out"), &[128]);
    list.conv(format!("{decoder}.conv_out"), 128, 3, 3);

    list.one(format!("{root}.quantize.embedding.weight"), &[IMAGE_CODES, CODE_WIDTH]);
    list.conv(format!("{root}.quant_conv"), 256, CODE_WIDTH, 1);
    list.conv(format!("{root}.post_quant_conv"), CODE_WIDTH, 256, 1);
}

fn middle(list: &mut List, coder: &str, names: &Vq) {
    residual(list, &format!("{coder}.mid.{}", names.mid[0]), 512, 512);
    attention(list, &format!("{coder}.mid.{}", names.mid[1]), 512);
    residual(list, &format!("{coder}.mid.{}", names.mid[2]), 512, 512);
}

/// `count` residual blocks, of which the first changes the number of channels.
fn residuals(list: &mut List, prefix: &str, count: usize, input: usize, output: usize) {
    for j in 0..count {
        let input = if j == 0 { input } else { output };
        residual(list, &format!("{prefix}.{j}"), input, output);
    }
}

fn residual(list: &mut List, name: &str, input: usize, output: usize) {
    list.pair(format!("{name}.norm1"), &[input]);
    list.conv(format!("{name}.conv1"), input, output, 3);
    list.pair(format!("{name}.norm2"), &[output]);
    list.conv(format!("{name}.conv2"), output, output, 3);
    if input != output {
        list.conv(format!("{name}.nin_shortcut"), input, output, 1);
    }
}

fn attention(list: &mut List, name: &str, channels: usize) {
    list.pair(format!("{name}.norm"), &[channels]);
    for part in ["q", "k", "v", "proj_out"] {
        list.conv(format!("{name}.{part}"), channels, channels, 1);
    }
}
