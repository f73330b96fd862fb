//! `janus completions` and `janus man`: what the flags know about themselves, for shells and man.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::pictures;
use crate::report::{self, Exit, Failure, Verdict};

/// Prints the script of a shell.
pub fn completions(args: &CompletionsArgs) -> Result<Verdict, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "janus", &mut script);
    report::print(&String::from_utf8_lossy(&script))?;
    Ok(Verdict::Yes)
}

/// Prints the main page, or writes all pages.
pub fn man(args: &ManArgs) -> Result<Verdict, Failure> {
    let mut command = Cli::command();
    // Gives the subcommands the flags that they share and the names that they are typed under.
    command.build();
    let Some(dir) = &args.dir else {
        let page = page(&command, "janus", Path::new("stdout"))?;
        report::print(&String::from_utf8_lossy(&page))?;
        return Ok(Verdict::Yes);
    };
    fs::create_dir_all(dir).map_err(|error| {
        let message = format!("{}: cannot create: {error}", dir.display());
        Failure::new(Exit::CannotCreate, message)
    })?;
    write(&command, "janus", dir)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        write(sub, &format!("janus-{}", sub.get_name()), dir)?;
    }
    Ok(Verdict::Yes)
}

fn write(command: &Command, name: &str, dir: &Path) -> Result<(), Failure> {
    let path = dir.join(format!("{name}.1"));
    pictures::write(&path, &page(command, name, &path)?)?;
    report::print(&format!("{}\n", path.display()))
}

fn page(command: &Command, name: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    let rendered: io::Result<()> =
        Man::new(command.clone().display_name(name)).title(name.to_uppercase()).render(&mut page);
    rendered.map_err(|error| Failure::io(path, "write", &error))?;
    Ok(page)
}
