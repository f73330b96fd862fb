//! Everything that is printed, and the exit code.
//!
//! An error is shown as `error: what`, its causes, and `hint: what next`; with `--json` as one
//! JSON line `{"error": {"message", "hint", "code"}}`. Both go to stderr: stdout holds data only.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;

use janus_infer::InferError;
use janus_model::checkpoint::{CheckpointError, HeaderError, IndexError};
use janus_model::config::ConfigError;
use janus_model::processor::{FileError, ImageError, ImageLimit, ProcessorError};
use janus_model::{Error, ErrorKind};
use janus_train::config::RecipeError;
use janus_train::evaluate::EvaluateError;
use janus_train::finetune::WishError;
use janus_train::parts::PartError;
use janus_train::scenes::DataSetError;
use janus_train::trainer::JobError;
use janus_train::words::WordsError;
use serde_json::json;

/// Exit codes, after `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Also: nobody reads our output any more.
    Ok = 0,
    /// The answer is "no".
    No = 1,
    /// The request makes no sense.
    Usage = 2,
    /// A file is damaged or not what it claims to be.
    BadData = 65,
    /// Something that is needed is not there.
    Missing = 66,
    /// A server could not be reached, or does not have it.
    Network = 69,
    /// A bug here.
    Internal = 70,
    /// The output cannot be created.
    CannotCreate = 73,
    /// Reading or writing failed, or the disk is full.
    Io = 74,
    /// Interrupted; what was finished is kept, and the same command goes on from there.
    Stopped = 75,
    /// A model's configuration is impossible.
    Config = 78,
    /// Interrupted; nothing to go on from.
    Interrupted = 130,
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Usage => Self::Usage,
            ErrorKind::BadData => Self::BadData,
            ErrorKind::Missing => Self::Missing,
            ErrorKind::Config => Self::Config,
            ErrorKind::Io => Self::Io,
            ErrorKind::Internal => Self::Internal,
        }
    }
}

/// The answer of a command that worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No,
    /// Somebody stopped it, and the same command goes on from there.
    Stopped,
    /// Somebody stopped it.
    Interrupted,
}

impl Verdict {
    /// The number that scripts see.
    pub fn exit_code(self) -> ExitCode {
        let exit = match self {
            Self::Yes => Exit::Ok,
            Self::No => Exit::No,
            Self::Stopped => Exit::Stopped,
            Self::Interrupted => Exit::Interrupted,
        };
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not work.
#[derive(Clone, Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure that has no error value behind it.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// With advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The operating system's answer about a path.
    pub fn io(path: &std::path::Path, action: &str, error: &io::Error) -> Self {
        let failure = Self {
            exit: Exit::Io,
            message: format!("{}: cannot {action}", path.display()),
            causes: vec![error.to_string()],
            hint: None,
        };
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge => failure
                .hint("make room, or choose another folder; nothing half-written was left behind"),
            _ => failure,
        }
    }

    /// What it says and what it advises, each on one line.
    pub fn parts(&self) -> (String, String) {
        let message =
            self.causes.iter().fold(self.message.clone(), |text, cause| text + ": " + cause);
        (message, self.hint.clone().unwrap_or_default())
    }

    /// Whether nobody reads stdout any more, which is not a failure.
    pub fn is_closed_pipe(&self) -> bool {
        self.exit == Exit::Ok
    }

    /// Says first where in the input it happened.
    pub fn at(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// The exit code it ends a command with.
    pub fn code(&self) -> u8 {
        self.exit as u8
    }

    /// The failure as scripts see it.
    pub fn value(&self) -> serde_json::Value {
        let mut message = self.message.clone();
        for cause in &self.causes {
            let _ = write!(message, ": {cause}");
        }
        json!({"message": message, "hint": self.hint, "code": self.exit as u8})
    }

    /// The failure on stderr, where the command goes on all the same.
    pub fn mention(&self) {
        tell(&self.text(&Style::stderr()));
    }

    /// Prints the failure and gives its exit code.
    pub fn show(&self, json: bool) -> ExitCode {
        if self.is_closed_pipe() {
            return ExitCode::SUCCESS;
        }
        let text = if json { self.json() } else { self.text(&Style::stderr()) };
        // If stderr is closed there is nobody left to tell.
        let _ = io::stderr().write_all(text.as_bytes());
        ExitCode::from(self.exit as u8)
    }

    fn text(&self, style: &Style) -> String {
        let mut text = format!("{} {}\n", style.red("error:"), self.message);
        for cause in &self.causes {
            let _ = writeln!(text, "  caused by: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "{} {hint}", style.cyan("hint:"));
        }
        text
    }

    fn json(&self) -> String {
        format!("{}\n", json!({"error": self.value()}))
    }
}

impl Failure {
    fn of(error: &dyn std::error::Error, kind: ErrorKind, hint: Option<String>) -> Self {
        Self { exit: kind.into(), message: error.to_string(), causes: causes(error), hint }
    }
}

/// What lies behind an error, outermost first.
fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let message = error.to_string();
    let mut causes: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Transparent errors, and those that quote their source, would say it twice.
        if !causes.last().unwrap_or(&message).contains(&text) {
            causes.push(text);
        }
        source = cause.source();
    }
    causes
}

/// An error and its causes on one line.
pub fn one_line(error: &dyn std::error::Error) -> String {
    causes(error).into_iter().fold(error.to_string(), |line, cause| line + ": " + &cause)
}

/// The flag that raises a limit, where a file met one.
fn limit_hint(error: &Error) -> Option<String> {
    let error = match error {
        Error::Checkpoint(error) => error,
        Error::Processor(ProcessorError::Image(error)) => return picture_hint(error),
        _ => return None,
    };
    let flag = match error {
        CheckpointError::Limit { what: "number of tensors", .. } => "--max-tensors",
        CheckpointError::Limit { what: "file size", path, .. }
            if path.extension().is_some_and(|extension| extension == "json") =>
        {
            "--max-index-size"
        }
        CheckpointError::Limit { what: "size of data.pkl", .. } => "--max-pickle-size",
        CheckpointError::Index {
            source: IndexError::TooMany { what: "number of tensors", .. },
            ..
        } => "--max-tensors",
        CheckpointError::Header { source, .. } => match source {
            HeaderError::HeaderTooLarge { .. } => "--max-header-size",
            HeaderError::TooManyTensors { .. } => "--max-tensors",
            HeaderError::NameTooLong { .. } => "--max-name-bytes",
            _ => return None,
        },
        _ => return None,
    };
    Some(format!("no Janus needs so much; if you trust the file, raise {flag}"))
}

/// The flag that raises a limit, where a picture met one.
fn picture_hint(error: &ImageError) -> Option<String> {
    let flag = match error {
        ImageError::File { source, .. } => return picture_hint(source),
        ImageError::TooManyBytes { .. } | ImageError::Read(FileError::TooLarge { .. }) => {
            "--max-image-size"
        }
        ImageError::TooLarge { which, .. } => match which {
            ImageLimit::Side => "--max-image-side",
            ImageLimit::Pixels => "--max-image-pixels",
            ImageLimit::Ratio => "--max-image-ratio",
            ImageLimit::Memory => "--max-image-memory",
        },
        _ => return None,
    };
    let advice = error.hint()?;
    Some(format!("{advice}; if you trust the file, raise {flag}"))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::of(&error, error.kind(), limit_hint(&error).or_else(|| error.hint()))
    }
}

impl From<InferError> for Failure {
    fn from(error: InferError) -> Self {
        let hint = match &error {
            InferError::Sampling { field, .. } => {
                Some(format!("it is set by --{}", field.replace('_', "-")))
            }
            InferError::Request { field: "guidance", .. } => {
                Some("it is set by --cfg; 5 is usual, 1 draws without guidance".into())
            }
            InferError::Request { field: "guidance by pictures", .. } => {
                Some("it is set by --cfg-image; 5 is usual, 0 keeps closest to the pictures".into())
            }
            _ => None,
        };
        match error {
            InferError::Model(error) => error.into(),
            error => Self::of(&error, error.kind(), hint.or_else(|| error.hint())),
        }
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        Error::from(error).into()
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Error::from(error).into()
    }
}

impl From<ProcessorError> for Failure {
    fn from(error: ProcessorError) -> Self {
        Error::from(error).into()
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Model(error) => error.into(),
            error => Self::of(&error, error.kind(), error.hint()),
        }
    }
}

impl From<PartError> for Failure {
    fn from(error: PartError) -> Self {
        Self::of(&error, error.kind(), error.hint())
    }
}

impl From<RecipeError> for Failure {
    fn from(error: RecipeError) -> Self {
        JobError::from(error).into()
    }
}

impl From<WishError> for Failure {
    fn from(error: WishError) -> Self {
        match error {
            WishError::Data(error) => JobError::from(error).into(),
            WishError::Recipe(error) => JobError::from(error).into(),
            WishError::Rule(error) => JobError::from(error).into(),
            error @ WishError::Nothing { .. } => {
                let failure = Self::new(Exit::Usage, error.to_string());
                failure.hint("choose another --task, or data for this one: docs/training-data.md")
            }
            error @ WishError::Zero { .. } => Self::new(Exit::Usage, error.to_string()),
        }
    }
}

impl From<EvaluateError> for Failure {
    fn from(error: EvaluateError) -> Self {
        Self::of(&error, error.kind(), error.hint())
    }
}

impl From<WordsError> for Failure {
    fn from(error: WordsError) -> Self {
        Self::of(&error, error.kind(), error.hint())
    }
}

impl From<DataSetError> for Failure {
    fn from(error: DataSetError) -> Self {
        match error {
            DataSetError::Io { path, source } => Self::io(&path, "write", &source),
            error => Self::new(Exit::CannotCreate, error.to_string())
                .hint("choose another --output, or remove it first"),
        }
    }
}

/// Writes data to stdout.
///
/// # Errors
/// A closed pipe ends the command as a success: the reader has seen enough.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| {
        let path = std::path::Path::new("stdout");
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::new(Exit::Ok, ""),
            _ => Failure::io(path, "write", &error),
        }
    })
}

/// Writes text of a model to stdout. A terminal gets no control characters: they could move its
/// cursor, or write to the clipboard in the name of whoever made the picture.
pub fn print_answer(text: &str) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return print(text);
    }
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    let shown = |c: char| if harmless(c) { c } else { char::REPLACEMENT_CHARACTER };
    print(&text.chars().map(shown).collect::<String>())
}

/// Writes a JSON value to stdout, indented for people.
pub fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// Writes whole lines for people to stderr.
pub fn tell(text: &str) {
    // If stderr is closed there is nobody left to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Tells something that is neither data nor an error.
pub fn note(text: &str) {
    let style = Style::stderr();
    let _ = writeln!(io::stderr(), "{} {text}", style.cyan("note:"));
}

/// Tells something that is wrong without ending the command.
pub fn problem(what: &str, hint: &str) {
    let failure = Failure::new(Exit::No, what);
    let failure = if hint.is_empty() { failure } else { failure.hint(hint) };
    let text = failure.text(&Style::stderr());
    let _ = io::stderr().write_all(text.replacen("error:", "problem:", 1).as_bytes());
}

/// Shows what clap found wrong, or the help that was asked for.
pub fn usage(error: &clap::Error, json: bool) -> ExitCode {
    if json && error.use_stderr() {
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        // Behind the first paragraph come usage and a pointer to --help.
        let message = text.split("\n\n").next().unwrap_or(text).trim();
        let hint = "see `janus --help`";
        return Failure::new(Exit::Usage, message).hint(hint).show(true);
    }
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { Exit::Usage as u8 } else { Exit::Ok as u8 })
}

/// What the last panic said. Some panics of libraries are caught and become ordinary errors
/// (`tokenizers`, picture decoders), so it is shown only when one reaches `main`.
static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Sends warnings of the libraries to stderr in this program's voice, and keeps panics quiet
/// until it is known whether somebody catches them.
pub fn set_up() {
    // Fails only if a subscriber is set already, which cannot be.
    let _ = tracing::subscriber::set_global_default(Warnings);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|at| format!(" ({at})")).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("no message");
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = Some(format!("{text}{place}"));
        }
    }));
}

/// The failure that stands for a panic.
pub fn bug() -> Failure {
    let last = LAST_PANIC.lock().ok().and_then(|mut last| last.take());
    let mut failure = Failure::new(Exit::Internal, "this is a bug in janus")
        .hint("please report it with the command and the lines above");
    failure.causes.extend(last);
    failure
}

/// Colours, where they are wanted.
pub struct Style {
    colour: bool,
}

impl Style {
    /// Colours for a terminal, unless `NO_COLOR` is set to anything.
    pub fn stderr() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: io::stderr().is_terminal() && !no_colour }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn red(&self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn cyan(&self, text: &str) -> String {
        self.paint("36", text)
    }
}

/// A tracing subscriber for warnings and errors of this project's crates, without spans.
struct Warnings;

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() <= tracing::Level::WARN
            && metadata.target().starts_with("janus")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    let _ = write!(self.0, "{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let _ = writeln!(io::stderr(), "warning: {}", message.0);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
