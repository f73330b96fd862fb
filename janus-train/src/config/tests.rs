#![allow(clippy::unwrap_used)]

use super::*;
use crate::data::{Format, Kind};
use crate::stage::{Action, Rule};

fn recipe(name: &str) -> TrainConfig {
    let (_, text) = RECIPES.iter().find(|(known, _)| *known == name).unwrap();
    TrainConfig::from_toml(text).unwrap()
}

fn stage_one() -> (&'static str, TrainConfig) {
    (RECIPES[0].1, recipe("janus-pro-1b-stage1"))
}

#[test]
fn every_recipe_is_whole_and_carries_its_name() {
    for (name, text) in RECIPES {
        let config = TrainConfig::from_toml(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        config.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(config.name, name);
        assert_eq!(name, format!("{}-stage{}", config.model, config.stage));
        assert!(config.data.is_empty(), "{name} names somebody's files");
        assert_eq!(TrainConfig::recipe(name), Some(config));
        let unsourced = |line: &&str| {
            let setting = line.contains('=') && !line.starts_with('#');
            setting && !["[R]", "[P]", "ours"].iter().any(|source| line.contains(source))
        };
        // Name, stage, model and the tables whose head says it for all of them.
        let free = ["name", "stage", "model", "train", "understand", "text", "draw"];
        let ours = ["every", "keep", "best", "window", "sigma", "skips", "within", "on_nan"];
        for line in text.lines().filter(unsourced) {
            let known = free.iter().chain(&ours).any(|key| line.starts_with(key));
            assert!(known, "{name}: no source for {line}");
        }
    }
    assert_eq!(TrainConfig::recipe("janus-pro-1b-stage4"), None);
}

/// Technical report, table 2.
#[test]
fn janus_pro_trains_as_published() {
    for (size, seven) in [("1b", false), ("7b", true)] {
        for stage in 1..=3 {
            let config = recipe(&format!("janus-pro-{size}-stage{stage}"));
            assert_eq!(
                Some(config.schedule()),
                Schedule::janus_pro(stage, seven),
                "{size} {stage}"
            );
            let optimizer = config.optimizer;
            assert_eq!((optimizer.beta1, optimizer.beta2), (0.9, 0.95));
            assert_eq!((optimizer.weight_decay, optimizer.clip), (0.0, 1.0));
            let (samples, ratio) =
                [(256, [1, 0, 3]), (512, [2, 3, 5]), (128, [5, 1, 4])][stage - 1];
            assert_eq!(config.batch.size, samples);
            assert_eq!(config.mix.ratio(), ratio);
            assert_eq!(
                (config.objective.unconditional, config.objective.first_sentence),
                (0.1, 0.25)
            );
        }
    }
}

#[test]
fn the_original_janus_trains_as_published() {
    let rows = [
        (Shape::Cosine, 1e-3, 300, 10_000, 256, 0.0, [1, 0, 1]),
        (Shape::Constant, 1e-4, 5000, 180_000, 512, 0.0, [2, 3, 5]),
        (Shape::Constant, 2e-5, 0, 24_000, 256, 0.1, [7, 3, 10]),
    ];
    for (stage, (shape, peak, warmup, steps, samples, decay, ratio)) in (1..).zip(rows) {
        let config = recipe(&format!("janus-1.3b-stage{stage}"));
        assert_eq!(config.schedule(), Schedule { peak, warmup, steps, shape });
        assert_eq!((config.batch.size, config.optimizer.weight_decay), (samples, decay));
        assert_eq!(config.mix.ratio(), ratio);
    }
}

#[test]
fn each_stage_trains_what_the_paper_says() {
    for model in ["janus-pro-1b", "janus-pro-7b", "janus-1.3b"] {
        for (stage, frozen) in [
            (1, &["gen_vision_model.**", "language_model.**", "vision_model.**"][..]),
            (2, &["gen_vision_model.**", "vision_model.**"]),
            (3, &["gen_vision_model.**"]),
        ] {
            let config = recipe(&format!("{model}-stage{stage}"));
            assert_eq!(config.train.0.len(), 7);
            let rules = config.train.0.iter().filter(|Rule(_, action)| *action == Action::Freeze);
            let mut found: Vec<String> = rules.map(|rule| rule.0.clone().into()).collect();
            found.sort_unstable();
            assert_eq!(found, frozen, "{model} {stage}");
        }
    }
}

fn complaint(text: &str) -> String {
    TrainConfig::from_toml(text).unwrap_err().to_string()
}

#[test]
fn errors_name_line_and_field() {
    let (text, _) = stage_one();
    let line = |needle: &str| 1 + text.lines().position(|line| line.starts_with(needle)).unwrap();

    let misspelt = complaint(&text.replace("warmup =", "warm_up ="));
    let start = format!("line {}: ", line("warmup"));
    assert!(misspelt.starts_with(&start), "{misspelt}");
    assert!(misspelt.contains("schedule: unknown field `warm_up`"), "{misspelt}");
    assert!(misspelt.contains("`warmup`"), "{misspelt}");

    let wrong = complaint(&text.replace("size = 256", "size = \"many\""));
    assert!(wrong.starts_with(&format!("line {}: batch.size: ", line("size"))), "{wrong}");
    assert!(wrong.contains("invalid type: string \"many\", expected usize"), "{wrong}");

    let negative = complaint(&text.replace("steps = 20_000", "steps = -1"));
    assert!(negative.contains("steps: ") && negative.contains("-1"), "{negative}");

    let missing = complaint(&text.replace("clip = 1.0", ""));
    assert!(missing.contains("optimizer: missing field `clip`"), "{missing}");

    let unknown = complaint(&text.replace("on_nan = \"skip\"", "on_nan = \"hope\""));
    assert!(unknown.contains("guard.on_nan: unknown variant `hope`"), "{unknown}");

    let broken = complaint(&text.replace("[mix]", "[mix"));
    assert!(broken.starts_with(&format!("line {}: ", line("[mix]"))), "{broken}");

    let twice = complaint(&format!("{text}\non_nan = \"stop\"\n"));
    assert!(twice.contains("duplicate key"), "{twice}");
}

#[test]
fn a_file_is_named_and_its_paths_are_taken_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.toml");
    let data = "\n[[data]]\nkind = \"draw\"\npath = \"pictures\"\nnames = \"n.json\"\n\n[[data]]\n\
                kind = \"understand\"\nformat = \"llava\"\npath = \"/abs/x.json\"\nweight = 2\n";
    std::fs::write(&path, format!("{}{data}", stage_one().0)).unwrap();
    let config = TrainConfig::read(&path).unwrap();
    config.check_sources().unwrap();
    assert_eq!(config.data[0].path, folder.path().join("pictures"));
    assert_eq!(config.data[0].names, Some(folder.path().join("n.json")));
    assert_eq!((config.data[0].format, config.data[0].weight), (None, 1.0));
    assert_eq!(config.data[1].path, std::path::Path::new("/abs/x.json"));
    assert_eq!((config.data[1].format, config.data[1].weight), (Some(Format::Llava), 2.0));

    std::fs::write(&path, "stage = 1\nx = 2\n").unwrap();
    let error = TrainConfig::read(&path).unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}: line 2: ", path.display())), "{error}");
    assert!(error.hint().unwrap().contains("misspelt"));

    std::fs::write(&path, b"name = \"\xff\"").unwrap();
    let error = TrainConfig::read(&path).unwrap_err().to_string();
    assert!(error.ends_with("not UTF-8 text: byte 8 begins no character"), "{error}");
    let error = TrainConfig::read(&folder.path().join("none.toml")).unwrap_err();
    assert_eq!(error.kind(), janus_model::ErrorKind::Missing);
}

fn with(overrides: &[&str]) -> Result<TrainConfig, RecipeError> {
    stage_one().1.with(&overrides.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
}

#[test]
fn overrides_go_through_the_same_door() {
    let config = with(&[
        "schedule.rate=3e-4",
        "mix.text=2",
        "optimizer.clip=2",
        "name=mine",
        "save.keep = 0",
        "data.0={kind=\"text\", path=\"a=b.txt\"}",
        "data.0.weight=3",
        "train.6.1=train",
        "start=out/stage0",
    ])
    .unwrap();
    assert_eq!((config.schedule.rate, config.mix.text, config.optimizer.clip), (3e-4, 2, 2.0));
    assert_eq!((config.name.as_str(), config.save.keep), ("mine", 0));
    assert_eq!(config.train.0[6].1, Action::Train);
    assert_eq!(config.start, Some("out/stage0".into()));
    let [source] = config.data.as_slice() else { panic!("{:?}", config.data) };
    assert_eq!((source.kind, source.weight), (Some(Kind::Text), 3.0));
    assert_eq!(source.path, std::path::Path::new("a=b.txt"));
}

#[test]
fn an_override_that_is_none_is_named() {
    for (given, expected) in [
        ("schedule.rat=1", "schedule.rat=1: unknown field `rat`, expected one of `shape`"),
        ("steps", "steps: no key=value"),
        ("steps=many", "steps=many: invalid type: string \"many\", expected usize"),
        ("steps.more=1", "steps.more=1: nothing lies below a value, such as more"),
        ("data.1.path=x", "data.1.path=x: 1 is no place in a list of 0: the first is 0"),
        ("mix..text=1", "mix..text=1: a part of the key is empty"),
        ("data.0.path={}", "data.0.path={}: invalid type: map, expected path string"),
    ] {
        let error = with(&[given]).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(error.kind(), janus_model::ErrorKind::Usage);
        assert!(error.hint().is_some());
    }
}

#[test]
fn ranges_name_field_value_and_range() {
    for (given, expected) in [
        ("stage=5", "stage is 5, but must be between 1 and 4"),
        ("name=../x", "name is \"../x\", but must be a plain name for a folder"),
        (
            "model=gpt",
            "model is \"gpt\", but must be janus-pro-1b, janus-pro-7b, janus-1.3b or any",
        ),
        ("steps=0", "steps is 0, but must be between 1 and 1000000000"),
        ("schedule.rate=nan", "schedule.rate is NaN, but must be between 0 and 1"),
        ("schedule.warmup=20001", "schedule.warmup is 20001, but must be between 0 and 20000"),
        ("optimizer.beta2=1", "optimizer.beta2 is 1, but must be at least 0 and below 1"),
        ("optimizer.epsilon=0", "optimizer.epsilon is 0, but must be a number above 0"),
        ("optimizer.clip=inf", "optimizer.clip is inf, but must be a number above 0"),
        ("batch.rows=257", "batch.rows is 257, but must be between 1 and 256"),
        ("batch.tokens=100000", "batch.tokens is 100000, but must be between 16 and 16384"),
        ("mix.text=1001", "mix.text is 1001, but must be between 0 and 1000"),
        (
            "objective.unconditional=1.5",
            "objective.unconditional is 1.5, but must be between 0 and 1",
        ),
        (
            "save.keep=1",
            "save.keep is 1, but must be at least 2, or 0 for all: the newest may turn out damaged",
        ),
        ("guard.within=3", "guard.within is 3, but must be between 10 and 1000000000"),
        ("train=[[\"**\", \"freeze\"]]", "train: no rule trains anything"),
        (
            "data.0={kind=\"text\",path=\"x\",weight=0}",
            "data.0.weight is 0, but must be a number above 0",
        ),
    ] {
        let error = with(&[given]).unwrap().validate().unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.kind(), janus_model::ErrorKind::Config);
    }
    let isolated = with(&["batch.pack=false", "batch.isolate=true"]).unwrap();
    assert!(isolated.validate().unwrap_err().to_string().starts_with("batch.isolate needs"));
    let empty = with(&["mix={understand=0,text=0,draw=0}"]).unwrap();
    assert_eq!(empty.validate().unwrap_err().to_string(), "mix: every share is 0");
    let small = with(&["batch.size=1", "batch.rows=1"]).unwrap().validate().unwrap_err();
    assert!(small.to_string().contains("at least 2, one sample of each kind"), "{small}");
}

#[test]
fn kinds_and_sources_must_match() {
    let problem = |given: &[&str]| match with(given).unwrap().check_sources() {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    };
    assert_eq!(problem(&[]), "data: there is no source");
    let only_drawn = "data.0={kind=\"draw\",path=\"a\"}";
    assert_eq!(problem(&[only_drawn]), "mix.understand is 1, but no source has that kind");
    assert_eq!(problem(&[only_drawn, "data.1.path=b"]), "", "the files of b will tell");
    let unread = with(&[
        "data.0={kind=\"understand\",path=\"a\"}",
        "data.1={kind=\"text\",path=\"b\"}",
        "data.2={kind=\"draw\",path=\"c\"}",
    ]);
    let error = unread.unwrap().check_sources().unwrap_err().to_string();
    assert_eq!(error, "data.1 has kind text, but mix.text is 0: it would never be read");
}

#[test]
fn what_orders_the_data_is_in_its_digest_and_nothing_else() {
    let digest = |given: &str| with(&[given]).unwrap().data_digest();
    let plain = stage_one().1.data_digest();
    assert_eq!(plain.len(), 64);
    for same in ["schedule.rate=1e-5", "save.keep=5", "steps=30000", "name=x", "batch.rows=1"] {
        assert_eq!(digest(same), plain, "{same}");
    }
    let source = |more: &str| digest(&format!("data.0={{path=\"a\"{more}}}"));
    assert_eq!(digest("data.0={path=\"elsewhere\",root=\"x\"}"), source(""), "moved");
    assert_ne!(source(""), plain);
    assert_ne!(source(",weight=2"), source(""));
    for other in ["seed=1", "batch.size=128", "mix.text=1", "objective.unconditional=0.2"] {
        assert_ne!(digest(other), plain, "{other}");
    }
}

#[test]
fn a_config_survives_being_written() {
    let config = with(&["data.0={kind=\"text\",path=\"x\"}"]).unwrap();
    let text = toml::to_string(&config).unwrap();
    assert_eq!(TrainConfig::from_toml(&text).unwrap(), config);
}
