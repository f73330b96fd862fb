use std::fs;
use std::path::Path;

use insta::assert_snapshot;

use crate::run;

fn put(folder: &Path, name: &str, text: &str) {
    fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
    fs::write(folder.join(name), text).unwrap();
}

fn metrics(losses: &[f64]) -> String {
    let line = |(at, loss): (usize, &f64)| {
        format!("{{\"step\":{},\"loss\":{loss},\"terms\":{{\"codebook\":1}}}}\n", at + 1)
    };
    losses.iter().enumerate().map(line).collect()
}

#[test]
fn curves_are_means_of_runs() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    put(at, "runs/a/metrics.jsonl", &metrics(&[4.0, 2.0, 1.0]));
    // A step more, which only this one has, and half a line behind it.
    put(at, "runs/b/metrics.jsonl", &(metrics(&[6.0, 4.0, 3.0, 0.0]) + "{\"step\":5,\"lo"));
    let two = "both=runs/a,runs/b";
    let ran = run(at, &["plot", "curves", two, "runs/a", "--smooth", "2", "--output", "a.svg"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "a.svg\n", ""), "{ran}");
    let svg = fs::read_to_string(at.join("a.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("both") && svg.contains("runs/a"));

    let json = ["plot", "curves", two, "--smooth", "2", "--output", "a.svg", "--json"];
    let end = &run(at, &json).json()["series"][0];
    // (2 + 1) / 2 and (4 + 3) / 2
    assert_eq!((&end["step"], &end["mean"]), (&3.0.into(), &2.5.into()));
    assert!((end["deviation"].as_f64().unwrap() - 2f64.sqrt()).abs() < 1e-12, "{end}");

    let term = ["plot", "curves", "runs/b", "--of", "codebook", "--output", "b.svg", "--json"];
    assert_eq!(run(at, &term).json()["series"][0]["mean"], 1.0);
}

fn marks(overall: f64, position: f64) -> String {
    format!("{{\"generation\":{{\"position\":{position},\"overall\":{overall}}},\"answers\":null}}")
}

#[test]
fn marks_are_bars_and_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (name, overall, position) in [("a", 0.5, 0.25), ("b", 0.75, 0.25), ("c", 1.0, 1.0)] {
        put(at, &format!("{name}.json"), &marks(overall, position));
    }
    let draw = ["plot", "scores", "ours=a.json,b.json", "c.json", "--output", "m.svg"];
    assert_snapshot!("plot_scores", run(at, &draw));
    let svg = fs::read_to_string(at.join("m.svg")).unwrap();
    assert!(svg.contains("ours") && svg.contains("c.json") && svg.contains("position"));
    let json = run(at, &[&draw[..], &["--json"]].concat()).json();
    assert_eq!(json["series"][0]["marks"]["overall"]["mean"], 0.625);
    assert_eq!(json["series"][1]["marks"]["position"]["deviation"], 0.0);
}

#[test]
fn what_cannot_be_drawn_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    put(at, "runs/a/metrics.jsonl", &metrics(&[1.0]));
    put(at, "broken.jsonl", "{\"step\":1,\"loss\":1}\nnot json\n");
    put(at, "long.jsonl", &"[".repeat(1 << 17));
    put(at, "marks.json", &marks(0.5, 0.5));
    let ran: Vec<String> = [
        &["curves", "runs/a", "--output", "a.png"][..],
        &["curves", "runs/a", "--of", "lost", "--output", "a.svg"],
        &["curves", "runs/b", "--output", "a.svg"],
        &["curves", "x=", "--output", "a.svg"],
        &["curves", "broken.jsonl", "--output", "a.svg"],
        &["curves", "long.jsonl", "--output", "a.svg"],
        &["curves", "runs/a", "--output", "nowhere/a.svg"],
        &["scores", "marks.json", "--of", "answers", "--output", "a.svg"],
        &["scores", "runs/a/metrics.jsonl", "--output", "a.svg"],
        &["scores", "nowhere.json", "--output", "a.svg"],
    ]
    .map(|words| run(at, &[&["plot"], words].concat()).to_string())
    .to_vec();
    assert_snapshot!("plot_refused", ran.join("\n"));
    assert!(!at.join("a.svg").exists());
}
