use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// `janus completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus completions bash > ~/.local/share/bash-completion/completions/janus
  janus completions zsh > ~/.zfunc/_janus
  janus completions fish > ~/.config/fish/completions/janus.fish")]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

/// `janus man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  janus man | man -l -
  janus man ~/.local/share/man/man1        janus.1, janus-ask.1 and so on")]
pub struct ManArgs {
    /// Folder for the pages of all commands; without it, the main page goes to stdout.
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
