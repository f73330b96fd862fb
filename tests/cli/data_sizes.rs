use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use serde_json::Value;

use crate::{Ran, fixtures, run};

const SIZES: &str = "\
[vision_config]
image_size = 32
patch_size = 8
hidden_size = 48
num_hidden_layers = 2
num_attention_heads = 4

[vq_config]
num_embeddings = 64
base_channels = 32
channel_multiplier = [1, 1, 2]
latent_channels = 32
num_res_blocks = 1

[text_config]
hidden_size = 64
intermediate_size = 176
num_hidden_layers = 2
num_attention_heads = 4
max_position_embeddings = 512
";

fn sizes(folder: &Path, more: &[&str]) -> Ran {
    run(folder, &[&["data", "sizes"], more].concat())
}

/// Sizes, and a vocabulary that was learnt.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("tiny.toml"), SIZES).unwrap();
    fs::write(here.join("a.txt"), "a red disc\na blue disc\n".repeat(9)).unwrap();
    let ran = run(here, &["data", "words", "a.txt", "--vocab", "280", "-o", "words"]);
    assert_eq!(ran.code, 0, "{ran}");
    folder
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_folder_of_sizes_is_written() {
    let folder = folder();
    let here = folder.path();
    let words = ["tiny.toml", "--words", "words"];
    assert_snapshot!("data_sizes", sizes(here, &[&words[..], &["-o", "tiny"]].concat()));
    let found = sizes(here, &[&words[..], &["-o", "again", "--json"]].concat()).json();
    assert_eq!((&found["image_tokens"], &found["image_codes"]), (&16.into(), &64.into()));
    assert_eq!(found["parts"].as_object().unwrap().len(), 7);

    let config = json(&here.join("tiny/config.json"));
    let vocabulary = config["text_config"]["vocab_size"].as_u64().unwrap();
    assert_eq!(vocabulary, 280);
    assert_eq!(config["image_token_id"], 280 - 9);
    assert_eq!(json(&here.join("tiny/tokenizer_config.json"))["model_max_length"], 512);
    assert_eq!(json(&here.join("tiny/processor_config.json"))["num_image_tokens"], 16);
    assert_eq!(json(&here.join("tiny/preprocessor_config.json"))["size"]["width"], 32);
    let same =
        ["words", "tiny"].map(|dir| fs::read(here.join(dir).join("tokenizer.json")).unwrap());
    assert_eq!(same[0], same[1]);

    // The vocabulary of a model does as well; what it cannot say, the sizes do.
    let model = fixtures().join("tiny-pro/original");
    let other = ["tiny.toml", "--words", model.to_str().unwrap(), "-o", "other", "--json"];
    assert_eq!(sizes(here, &other).json()["tokens"], 578);
}

/// From text to a model that draws, with nothing given but data.
#[test]
fn a_model_is_trained_from_nothing() {
    let folder = folder();
    let here = folder.path();
    let ran = sizes(here, &["tiny.toml", "--words", "words", "-o", "tiny"]);
    assert_eq!(ran.code, 0, "{ran}");
    let discs = here.join("discs");
    fs::create_dir(&discs).unwrap();
    for (name, colour) in [("red", [200, 0, 0]), ("blue", [0, 0, 200])] {
        let picture = image::RgbImage::from_pixel(32, 32, image::Rgb(colour));
        picture.save(discs.join(format!("{name}.png"))).unwrap();
        fs::write(discs.join(format!("{name}.txt")), format!("a {name} disc")).unwrap();
    }
    let shown = run(here, &["train", "--show", "janus-pro-1b-stage1"]).stdout;
    let recipe =
        shown + "\n[init]\nmodel = \"tiny\"\n\n[[data]]\npath = \"discs\"\nkind = \"draw\"\n";
    fs::write(here.join("recipe.toml"), recipe).unwrap();
    let set = ["steps=1", "batch.size=2", "batch.rows=1", "batch.tokens=256", "mix.understand=0"];
    let set = set.iter().flat_map(|pair| ["--set", pair]);
    let fixed = ["train", "recipe.toml", "--output", "run", "--device", "cpu"];
    let words: Vec<&str> = fixed.into_iter().chain(set).collect();
    let ran = run(here, &[&words[..], &["--dry-run"]].concat());
    assert_eq!(ran.code, 0, "{ran}");
    let ran = run(here, &words);
    assert_eq!(ran.code, 0, "{ran}");
    let draw = ["generate", "a red disc", "--model", "run", "--seed", "1", "-o", "a.png"];
    let ran = run(here, &[&draw[..], &["--device", "cpu"]].concat());
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(image::open(here.join("a.png")).unwrap().width(), 32);
}

#[test]
fn bad_requests_are_refused() {
    let folder = folder();
    let here = folder.path();
    let bad = |text: String| {
        fs::write(here.join("bad.toml"), text).unwrap();
        sizes(here, &["bad.toml", "--words", "words", "-o", "x"])
    };
    assert_snapshot!("data_sizes_unknown", bad(SIZES.replace("patch_size", "patchsize")));
    assert_snapshot!(
        "data_sizes_range",
        bad(SIZES.replace("base_channels = 32", "base_channels = 20"))
    );
    assert_snapshot!("data_sizes_no_words", sizes(here, &["tiny.toml", "--words", "w", "-o", "x"]));
    assert_snapshot!("data_sizes_no_file", sizes(here, &["t.toml", "--words", "words", "-o", "x"]));
    assert_snapshot!(
        "data_sizes_full",
        sizes(here, &["tiny.toml", "--words", "words", "-o", "words"])
    );
    assert!(!here.join("x").exists());
}
