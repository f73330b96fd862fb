use insta::assert_snapshot;

use crate::{fixtures, run};

fn help(words: &[&str]) -> String {
    run(&fixtures(), words).to_string()
}

#[test]
fn every_command_explains_itself() {
    assert_snapshot!("help", help(&["--help"]));
    assert_snapshot!("help_ask", help(&["ask", "--help"]));
    assert_snapshot!("help_chat", help(&["chat", "--help"]));
    assert_snapshot!("help_batch", help(&["batch", "--help"]));
    assert_snapshot!("help_generate", help(&["generate", "--help"]));
    assert_snapshot!("help_generate_short", help(&["generate", "-h"]));
    assert_snapshot!("help_inspect", help(&["inspect", "--help"]));
    assert_snapshot!("help_devices", help(&["devices", "--help"]));
    assert_snapshot!("help_convert", help(&["convert", "--help"]));
    assert_snapshot!("help_bench", help(&["bench", "--help"]));
    assert_snapshot!("help_estimate", help(&["estimate", "--help"]));
    assert_snapshot!("help_convert_short", help(&["convert", "-h"]));
    assert_snapshot!("help_pull", help(&["pull", "--help"]));
    assert_snapshot!("help_doctor", help(&["doctor", "--help"]));
    assert_snapshot!("help_train", help(&["train", "--help"]));
    assert_snapshot!("help_finetune", help(&["finetune", "--help"]));
    assert_snapshot!("help_data_scenes", help(&["data", "scenes", "--help"]));
    assert_snapshot!("help_eval", help(&["eval", "--help"]));
    assert_snapshot!("help_eval_scenes", help(&["eval", "scenes", "--help"]));
    assert_snapshot!("help_eval_loss", help(&["eval", "loss", "--help"]));
    assert_snapshot!("help_data", help(&["data", "--help"]));
    assert_snapshot!("help_data_sizes", help(&["data", "sizes", "--help"]));
    assert_snapshot!("help_data_words", help(&["data", "words", "--help"]));
    assert_snapshot!("help_plot", help(&["plot", "--help"]));
    assert_snapshot!("help_plot_curves", help(&["plot", "curves", "--help"]));
    assert_snapshot!("help_plot_scores", help(&["plot", "scores", "--help"]));
    assert_snapshot!("help_completions", help(&["completions", "--help"]));
    assert_snapshot!("help_man", help(&["man", "--help"]));
}

#[test]
fn usage_errors_exit_with_2() {
    assert_snapshot!("usage_nothing", help(&[]));
    assert_snapshot!("usage_unknown_command", help(&["inspekt", "x"]));
    assert_snapshot!("usage_names_missing", help(&["convert", "a", "b"]));
    assert_snapshot!(
        "usage_size",
        help(&["convert", "a", "b", "--names", "hf", "--max-shard-size", "0"])
    );
}

#[test]
fn usage_errors_are_json_on_request() {
    let ran = run(&fixtures(), &["convert", "a", "b", "--names", "klingon", "--json"]);
    assert_eq!(ran.code, 2);
    let error = ran.error();
    assert_eq!(error["code"], 2);
    assert!(error["message"].as_str().unwrap().contains("klingon"), "{error}");
}

#[test]
fn version_is_the_crates() {
    let ran = run(&fixtures(), &["--version"]);
    assert_eq!(ran.stdout, format!("janus {}\n", env!("CARGO_PKG_VERSION")));
}
