//! Loading: strict both ways, one half on request, mapped where the format allows.

use burn::tensor::{DType, Device};
use janus_model::processor::Processor;
use janus_model::{Error, Janus, JanusConfig, LoadOptions, Parts};

use crate::common::{FOLDERS, fixtures};

/// bf16 weights used as bf16 stay in the file: their addresses lie inside its mapping.
#[cfg(all(feature = "cpu", target_os = "linux"))]
#[test]
fn bf16_weights_are_mapped_not_copied() {
    use burn::backend::Flex;
    for (model, folder) in FOLDERS {
        let path = fixtures().join(model).join(folder);
        let options = LoadOptions { dtype: Some(DType::BF16), ..Default::default() };
        let (janus, _) = Janus::load(&path, &Device::flex(), &options).unwrap();
        let layer = &janus.language_model.model.layers[0];
        for weight in [&layer.mlp.up_proj.weight, &layer.self_attn.o_proj.weight] {
            let primitive = weight.val().try_into_primitive::<Flex>().unwrap();
            let address = primitive.bytes().as_ptr() as usize;
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            let holder = maps.lines().find(|line| {
                let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
                let parse = |hex| usize::from_str_radix(hex, 16).unwrap();
                (parse(start)..parse(end)).contains(&address)
            });
            let holder = holder.unwrap();
            assert!(
                holder.contains("model") && holder.contains(folder),
                "{model}/{folder}: {holder}"
            );
        }
    }
}

#[test]
fn either_half_loads_alone_and_says_what_it_lacks() {
    let path = fixtures().join("tiny-pro/original");
    let load = |parts| {
        let options = LoadOptions { parts, dtype: Some(DType::F32), ..Default::default() };
        Janus::load(&path, &Device::flex(), &options).unwrap().0
    };
    let all = load(Parts::All).tensors().len();
    let understanding = load(Parts::Understanding);
    let generation = load(Parts::Generation);
    assert!(understanding.gen_vision_model.is_none() && generation.vision_model.is_none());
    assert!(generation.language_model.lm_head.is_none());
    // The decoder body belongs to both.
    let body =
        generation.tensors().iter().filter(|t| t.name.starts_with("language_model.")).count();
    assert_eq!(understanding.tensors().len() + generation.tensors().len(), all + body);
    let codes = burn::tensor::Tensor::<2, burn::tensor::Int>::zeros([1, 1], &Device::flex());
    let error = understanding.embed_codes(codes).unwrap_err();
    assert!(matches!(error, Error::PartNotLoaded { part: "gen_embed", .. }), "{error}");
}

/// What the model asks for, under the names of the original, is what the original files hold.
#[test]
fn expected_names_are_those_of_the_checkpoint() {
    let path = fixtures().join("tiny-pro/original");
    let config = JanusConfig::from_dir(&path).unwrap().0;
    let options = LoadOptions { dtype: Some(DType::F32), ..Default::default() };
    let (janus, report) = Janus::load(&path, &Device::flex(), &options).unwrap();
    let expected = config.expected_tensors(&Device::flex());
    assert_eq!(expected.len(), report.tensors);
    let mut names: Vec<_> =
        janus.tensors().into_iter().map(|t| (t.name, t.shape.to_vec())).collect();
    let mut expected = expected;
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
    // Thirteen tensors of the pooling head and the usage buffer.
    assert_eq!(report.dropped.len(), 14, "{:?}", report.dropped);
}

/// The published sizes, tensor by tensor: 882 of 1B and 936 of 7B, less the 14 never read.
#[test]
fn presets_ask_for_the_published_tensors() {
    for (config, tensors, elements) in [
        (JanusConfig::pro_1b(), 882, 2_089_297_547usize),
        (JanusConfig::pro_7b(), 936, 7_420_434_059),
    ] {
        let expected = config.expected_tensors(&Device::flex());
        let total: usize = expected.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(expected.len(), tensors - 14);
        assert_eq!(total, elements - 12_595_200 - 65_536);
    }
}

/// Tokenizer and image rules of every folder agree with the model beside them.
#[test]
fn processors_fit_their_models() {
    for (model, folder) in FOLDERS {
        let path = fixtures().join(model).join(folder);
        let config = JanusConfig::from_dir(&path).unwrap().0;
        let processor = Processor::for_model(&path, &config).unwrap();
        assert_eq!(processor.num_image_tokens, 144);
        let mut small = config.clone();
        small.language.vocab_size = 100;
        assert!(Processor::for_model(&path, &small).is_err(), "ids beyond the tables");
        let mut fewer = config;
        fewer.vision.patch_size = 16;
        let error = Processor::for_model(&path, &fewer).unwrap_err().to_string();
        assert!(error.contains("144 image tokens") && error.contains("36"), "{error}");
    }
}
