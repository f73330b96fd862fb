//! A row with everything read that it names: ready to be asked, and told from every other row.

use janus_model::processor::{Conversation, ProcessorError, RgbImage8, Role};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::rows::{Row, Task};
use crate::args::BatchArgs;
use crate::pictures;
use crate::report::Failure;

/// A row that was read.
pub struct Prepared {
    /// As [`Row::id`].
    pub id: Value,
    place: Option<String>,
    /// Pictures as the input names them.
    pub images: Vec<String>,
    /// The last turn; none where the row cannot be understood.
    pub question: Option<String>,
    /// Tells words and pictures from others.
    pub input: String,
    /// What is to be asked, or why it cannot be.
    pub ready: Result<(Conversation, Vec<RgbImage8>), Failure>,
}

impl Prepared {
    /// Reads and decodes the pictures of a row.
    pub fn new(row: Row, args: &BatchArgs) -> Self {
        let Row { id, place, task } = row;
        let files = files(&task, args);
        let input = digest(&id, &task, &files);
        let (images, question, ready) = match task {
            Ok(task) => {
                let question = task.turns.last().map(|(_, text)| text.clone());
                let ready = ready(&task, files, args);
                (task.images, question, ready)
            }
            Err(failure) => (Vec::new(), None, Err(failure)),
        };
        Self { id, place, images, question, input, ready }
    }

    /// Says where in the input something went wrong, unless it is said already.
    pub fn placed(&self, failure: Failure) -> Failure {
        match &self.place {
            Some(place) => failure.at(place),
            None => failure,
        }
    }

    /// Why the row cannot be asked.
    pub fn failure(&self) -> Option<Failure> {
        self.ready.as_ref().err().cloned()
    }
}

/// What tells a row from others, without decoding its pictures.
pub fn digest_of(row: &Row, args: &BatchArgs) -> String {
    digest(&row.id, &row.task, &files(&row.task, args))
}

type Files = Vec<Result<Vec<u8>, Failure>>;

fn files(task: &Result<Task, Failure>, args: &BatchArgs) -> Files {
    let paths = task.iter().flat_map(|task| &task.paths);
    paths.map(|path| pictures::read_bytes(path, &args.answer.reading)).collect()
}

fn digest(id: &Value, task: &Result<Task, Failure>, files: &Files) -> String {
    let words = match task {
        Ok(task) => {
            let role = |role: &Role| if *role == Role::User { "user" } else { "assistant" };
            let turns: Vec<_> = task.turns.iter().map(|(r, text)| (role(r), text)).collect();
            json!({"id": id, "images": task.images, "turns": turns, "system": task.system})
        }
        Err(failure) => json!({"id": id, "error": failure.code()}),
    };
    let mut hash = Sha256::new();
    hash.update(words.to_string());
    for file in files {
        match file {
            Ok(bytes) => {
                hash.update((bytes.len() as u64).to_le_bytes());
                hash.update(bytes);
            }
            // Not the message: it names the path, which depends on where the command is run.
            Err(failure) => hash.update([failure.code()]),
        }
    }
    short(hash)
}

/// Half of the digest: plenty to tell rows apart.
pub fn short(hash: Sha256) -> String {
    format!("{:x}", hash.finalize())[..32].to_owned()
}

fn ready(
    task: &Task,
    files: Files,
    args: &BatchArgs,
) -> Result<(Conversation, Vec<RgbImage8>), Failure> {
    let mut images = Vec::with_capacity(files.len());
    for (path, bytes) in task.paths.iter().zip(files) {
        images.push(pictures::decode(path, &bytes?, &args.answer.reading)?);
    }
    let turns: Vec<_> = task.turns.iter().map(|(role, text)| (*role, text.as_str())).collect();
    let system = task.system.as_deref().or(args.answer.system.as_deref());
    let conversation = Conversation::from_text(system, &turns, images.len());
    Ok((conversation.map_err(ProcessorError::from)?, images))
}
