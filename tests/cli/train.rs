//! `janus train` and `janus finetune`: real runs of a tiny model, killed, stopped and gone on with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use image::{Rgb, RgbImage};
use insta::assert_snapshot;
use sha2::{Digest, Sha256};

use crate::{Ran, fixtures, janus, run};

/// A folder with the tiny model, captioned discs, and questions about them.
fn folder(pictures: u32) -> tempfile::TempDir {
    let here = crate::copy_of("tiny-pro/original");
    let discs = here.path().join("discs");
    fs::create_dir(&discs).unwrap();
    let mut questions = String::new();
    for number in 0..pictures {
        let (name, colour) =
            if number % 2 == 0 { ("red", [210, 20, 20]) } else { ("blue", [20, 20, 210]) };
        let inside = |x: u32, y: u32| {
            (i64::from(x) - 20).pow(2) + (i64::from(y) - 20).pow(2) < i64::from(60 + 10 * number)
        };
        let picture = RgbImage::from_fn(40, 40, |x, y| match inside(x, y) {
            true => Rgb(colour),
            false => Rgb([240, 240, 240]),
        });
        picture.save(discs.join(format!("{number}.png"))).unwrap();
        fs::write(discs.join(format!("{number}.txt")), format!("a {name} disc")).unwrap();
        questions += &format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":\"<image>Which colour?\"}},\
             {{\"role\":\"assistant\",\"content\":\"{name}\"}}],\
             \"images\":[\"discs/{number}.png\"]}}\n"
        );
    }
    fs::write(here.path().join("questions.jsonl"), questions).unwrap();
    here
}

/// A run of adapters on the discs.
fn finetune<'a>(output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words = [
        "finetune",
        "--task",
        "generate",
        "--data",
        "discs",
        "--model",
        "model",
        "--output",
        output,
        "--device",
        "cpu",
        "--lora",
        "2",
        "--batch",
        "2",
        "--set",
        "save.keep=2",
    ];
    [&words[..], more].concat()
}

/// The same run with whole weights in place of adapters.
fn whole_weights(mut words: Vec<&str>) -> Vec<&str> {
    if let Some(at) = words.iter().position(|word| *word == "--lora") {
        words.splice(at..at + 2, ["--full"]);
    }
    words
}

/// Burn asks for its default device when it goes on, and does nothing with it.
fn go(here: &Path, words: &[&str]) -> Ran {
    let mut command = janus(here);
    command.args(words).env("BURN_DEVICE", "flex");
    Ran::new(command)
}

fn start(here: &Path, words: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_janus"));
    command.args(words).current_dir(here).env("BURN_DEVICE", "flex").env_remove("JANUS_MODEL");
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Hashes of the files of the last checkpoint, and its name.
fn last(output: &Path) -> (PathBuf, BTreeMap<String, String>) {
    let latest = fs::canonicalize(output.join("ckpt/latest")).unwrap();
    let mut found = BTreeMap::new();
    let mut folders = vec![latest.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let hash = format!("{:x}", Sha256::digest(fs::read(&path).unwrap()));
            found.insert(path.strip_prefix(&latest).unwrap().display().to_string(), hash);
        }
    }
    (latest.file_name().unwrap().into(), found)
}

#[test]
fn recipes_are_listed_and_shown() {
    let ran = run(&fixtures(), &["train", "--list"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stdout.lines().any(|line| line == "janus-pro-7b-stage2"), "{ran}");
    let ran = run(&fixtures(), &["train", "--show", "janus-pro-1b-stage1"]);
    assert!(ran.stdout.contains("rate = 1.0e-3"), "{ran}");
    assert_snapshot!(
        "train_unknown",
        run(&fixtures(), &["train", "stage9", "--output", "x"]).to_string()
    );
}

#[test]
fn what_is_missing_is_said() {
    let here = folder(2);
    let say = |words: &[&str]| run(here.path(), words).to_string();
    let stage = ["train", "janus-pro-1b-stage1", "--device", "cpu"];
    assert_snapshot!("train_no_output", say(&[&stage[..], &["--data", "discs"]].concat()));
    let run = [&stage[..], &["--output", "run"]].concat();
    assert_snapshot!("train_no_data", say(&[&run[..], &["--start", "model"]].concat()));
    assert_snapshot!(
        "train_no_start",
        say(&[&run[..], &["--data", "discs", "--set", "mix={understand=0,text=0,draw=1}"]].concat())
    );
    assert_snapshot!("train_misspelt", say(&[&run[..], &["--set", "schedule.rat=1"]].concat()));
    assert_snapshot!(
        "finetune_nothing",
        say(&[
            "finetune",
            "--task",
            "understand",
            "--data",
            "discs",
            "--model",
            "model",
            "--device",
            "cpu",
            "--output",
            "run"
        ])
    );
    assert!(!here.path().join("run").exists());
}

/// The whole plan of a stage of the published sizes, without a weight.
#[test]
fn a_dry_run_tells_what_would_train() {
    let here = folder(8);
    let words = whole_weights(finetune("run", &["--dry-run", "--json"]));
    let ran = run(here.path(), &words);
    assert_eq!(ran.code, 0, "{ran}");
    let stage = &ran.json()["stages"][0];
    let parts = stage["forecast"]["parts"].as_array().unwrap();
    let trained = |name: &str| {
        parts.iter().find(|part| part["name"] == name).unwrap()["trained"].as_u64().unwrap()
    };
    assert_eq!((trained("vision_model"), trained("gen_vision_model")), (0, 0));
    assert!(trained("gen_head") > 0 && trained("language_model") > 0);
    assert_eq!(stage["forecast"]["steps"], 12);
    assert!(stage["seconds"].as_f64().unwrap() > 0.0);
    assert!(!here.path().join("run").exists(), "a dry run writes nothing");
    let ran = run(here.path(), &finetune("run", &["--dry-run"]));
    assert!(ran.stdout.contains("gen_head") && ran.stdout.contains("memory"), "{ran}");
}

/// A run leaves an adapter that the other commands take.
#[test]
fn a_finetuned_model_draws() {
    let here = folder(6);
    let more = [
        "--set",
        "schedule.rate=1e-2",
        "--epochs",
        "4",
        "--sample",
        "a red disc",
        "--set",
        "samples.every=6",
        "--valid",
        "discs",
        "--tensorboard",
        "--json",
    ];
    let ran = go(here.path(), &finetune("run", &more));
    assert_eq!(ran.code, 0, "{ran}");
    let told = ran.json()["runs"][0].clone();
    assert_eq!((&told["end"], &told["step"]), (&"finished".into(), &12.into()), "{ran}");
    assert!(told["valid_loss"].as_f64().unwrap() < 6.0, "{ran}");
    assert_eq!(told["model"], "run/ckpt/latest/adapter");
    let run = here.path().join("run");
    for sample in ["step-000006/0.png", "step-000012/0.png"] {
        assert!(image::open(run.join("samples").join(sample)).is_ok(), "{sample}");
    }
    assert!(fs::read_dir(run.join("events")).unwrap().next().is_some());
    // Again: there is nothing left to do.
    let ran = go(here.path(), &finetune("run", &more));
    assert_eq!((ran.code, &ran.json()["runs"][0]["end"]), (0, &"finished".into()), "{ran}");
}

/// Stages chain by themselves, and what comes of the last one answers.
#[test]
fn stages_follow_each_other() {
    let here = folder(4);
    let small = |stage: &str, more: &str| {
        let text = run(&fixtures(), &["train", "--show", stage]).stdout;
        let text = text.replace("model = \"janus-pro-1b\"", "model = \"any\"");
        let line = |text: String, key: &str, value: &str| {
            let lines = text.lines().map(|line| match line.starts_with(key) {
                true => format!("{key} = {value}\n"),
                false => format!("{line}\n"),
            });
            lines.collect::<String>()
        };
        let text = ["steps|2", "size|4", "rows|4", "tokens|1024", "every|1", "warmup|0", more]
            .iter()
            .filter_map(|pair| pair.split_once('|'))
            .fold(text, |text, (key, value)| line(text, key, value));
        let text = line(line(text, "text", "0"), "understand", "1")
            + "\n[[data]]\npath = \"questions.jsonl\"\n[[data]]\npath = \"discs\"\n";
        let path = here.path().join(format!("{stage}.toml"));
        fs::write(&path, line(text, "draw", "1")).unwrap();
        format!("{stage}.toml")
    };
    let names = ["janus-pro-1b-stage1", "janus-pro-1b-stage2", "janus-pro-1b-stage3"];
    let recipes = names.map(|name| small(name, ""));
    let words = [
        "train",
        &recipes[0],
        &recipes[1],
        &recipes[2],
        "--start",
        "model",
        "--output",
        "runs",
        "--device",
        "cpu",
    ];
    let ran = go(here.path(), &words);
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(ran.stdout.lines().count(), 3, "{ran}");
    let model = format!("runs/{}/ckpt/latest/model", names[2]);
    let ran =
        run(here.path(), &["ask", "discs/0.png", "-q", "Which?", "-m", &model, "--device", "cpu"]);
    assert_eq!(ran.code, 0, "{ran}");
    // The order matters: stage 3 does not start from stage 1.
    let wrong = [
        "train",
        &recipes[2],
        "--start",
        &format!("runs/{}", names[0]),
        "--output",
        "x",
        "--device",
        "cpu",
    ];
    let ran = go(here.path(), &wrong);
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("stage 1"), "{ran}");
}

/// T3: twenty times killed without warning, at moments that a printed seed decides: while it loads,
/// while it computes, while it saves. Half of them while adapters learn, half while weights do.
#[test]
#[cfg(unix)]
fn a_run_killed_twenty_times_ends_in_the_same_bytes() {
    let here = folder(6);
    let more = ["--set", "steps=40", "--set", "save.every=1", "--set", "compute.recompute=false"];
    let mut state: u64 = 0x5eed;
    println!("seed {state:#x}");
    let mut draw = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for (what, words) in [
        ("adapters", (|output, more| finetune(output, more)) as fn(&'static str, _) -> _),
        ("weights", |output, more| whole_weights(finetune(output, more))),
    ] {
        let (killed, whole) = match what {
            "adapters" => ("killed-adapters", "whole-adapters"),
            _ => ("killed-weights", "whole-weights"),
        };
        assert_eq!(go(here.path(), &words(whole, &more)).code, 0);
        let metrics = here.path().join(killed).join("metrics.jsonl");
        let lines = || fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
        for kill in 0..10 {
            let mut child = start(here.path(), &words(killed, &more));
            let wanted = lines() + draw(4) as usize;
            while lines() < wanted {
                assert!(child.try_wait().unwrap().is_none(), "{what}: ended before kill {kill}");
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(draw(60)));
            assert!(child.try_wait().unwrap().is_none(), "{what}: ended before kill {kill}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let ran = go(here.path(), &words(killed, &more));
        assert_eq!(ran.code, 0, "{ran}");
        assert_eq!(last(&here.path().join(killed)), last(&here.path().join(whole)), "{what}");
    }
}

/// SIGTERM: the step ends or is taken back, everything is saved, and the exit code says so.
#[test]
#[cfg(unix)]
fn sigterm_saves_and_exits_with_75() {
    let here = folder(6);
    let more = ["--set", "steps=400", "--set", "save.every=1000"];
    let mut child = start(here.path(), &finetune("run", &more));
    let metrics = here.path().join("run/metrics.jsonl");
    let lines = || fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    while lines() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let (name, _) = last(&here.path().join("run"));
    assert_eq!(name, PathBuf::from(format!("step-{:06}", lines())));
}

/// T4: a disk that is full. What was saved before stays whole.
#[test]
#[cfg(unix)]
fn a_full_disk_leaves_the_last_checkpoint() {
    let here = folder(4);
    let more = ["--set", "steps=2", "--set", "save.every=1"];
    let words = whole_weights(finetune("run", &more));
    assert_eq!(go(here.path(), &words).code, 0);
    let before = last(&here.path().join("run"));
    let script = format!(
        "trap '' XFSZ; ulimit -f 300; exec \"$JANUS\" {}",
        words.join(" ").replace("steps=2", "steps=4")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(here.path());
    command.env("JANUS", env!("CARGO_BIN_EXE_janus")).env("BURN_DEVICE", "flex");
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(74), "{told}");
    assert_eq!(last(&here.path().join("run")), before, "{told}");
}

/// T10 and R4: two trainers never share a folder.
#[test]
#[cfg(unix)]
fn a_second_trainer_is_refused() {
    let here = folder(4);
    let more = ["--set", "steps=4000"];
    let mut child = start(here.path(), &finetune("run", &more));
    let metrics = here.path().join("run/metrics.jsonl");
    while fs::metadata(&metrics).map_or(0, |data| data.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    let ran = go(here.path(), &finetune("run", &more));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("is training here"), "{ran}");
}
