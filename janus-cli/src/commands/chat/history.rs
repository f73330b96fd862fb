//! What was typed in earlier chats. It never keeps a chat from going on.

use std::fs;
use std::path::PathBuf;

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::report;

/// Reads the history; where it lies, if it can be written.
pub fn open(editor: &mut DefaultEditor) -> Option<PathBuf> {
    let path = place()?;
    if let Some(folder) = path.parent()
        && let Err(error) = create_private(folder)
    {
        report::note(&format!("no history: {}: {error}", folder.display()));
        return None;
    }
    match editor.load_history(&path) {
        Ok(()) => Some(path),
        Err(ReadlineError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Some(path),
        Err(error) => {
            report::note(&format!("no history: {}: {error}", path.display()));
            None
        }
    }
}

/// Adds a turn and writes it at once. The file is readable by its owner only.
pub fn add(editor: &mut DefaultEditor, history: &mut Option<PathBuf>, turn: &str) {
    // Without a file, lines are still remembered while the chat lasts.
    let added = editor.add_history_entry(turn);
    let Some(path) = history else { return };
    if let Err(error) = added.and_then(|_| editor.append_history(path)) {
        report::note(&format!("no history: {}: {error}", path.display()));
        *history = None;
    }
}

#[cfg(unix)]
fn create_private(folder: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_private(folder: &std::path::Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)
}

/// Where the system wants such files; `None` where it has no home for them.
fn place() -> Option<PathBuf> {
    let variable =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::home_dir().filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME").or_else(|| {
        if cfg!(windows) {
            variable("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            Some(home()?.join("Library/Application Support"))
        } else {
            Some(home()?.join(".local/state"))
        }
    });
    Some(state?.join("janus").join("history"))
}
