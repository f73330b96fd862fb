//! Pictures and answers of a model while it learns, to be looked at.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use janus_infer::{AskOptions, DrawOptions, Engine};
use janus_model::Janus;
use janus_model::processor::{
    Conversation, ImageLimits, Orientation, Processor, ProcessorError, RgbImage8, Role, load_image,
};
use janus_train::config::{SampleQuestion, SamplesConfig};
use janus_train::trainer::{Job, Look};
use serde_json::json;

use crate::args::RunArgs;
use crate::report::{self, Failure};
use crate::{interrupt, pictures};

/// Words of an answer at most.
const ANSWER: usize = 64;

/// What draws and answers into `<output>/samples/step-<n>/`; nothing where nothing is wanted.
///
/// # Errors
/// A picture that is asked about cannot be read: better now than in the night.
pub fn look(
    job: &Job,
    samples: SamplesConfig,
    output: &Path,
    args: &RunArgs,
) -> Result<Option<Look>, Failure> {
    if samples.every == 0 || (samples.prompts.is_empty() && samples.questions.is_empty()) {
        return Ok(None);
    }
    let (start, config) = (job.start().to_owned(), job.model().clone());
    let limits = args.images.limits();
    let asked = samples.questions.iter().map(|asked| question(asked, &limits));
    let asked = asked.collect::<Result<Vec<_>, _>>()?;
    let folder = output.join("samples");
    Ok(Some(Box::new(move |step, janus: &Janus| {
        let folder = folder.join(format!("step-{step:06}"));
        let drawn =
            Processor::for_model(&start, &config).map_err(Failure::from).and_then(|rules| {
                let engine = Engine::new(janus.clone(), rules);
                samples_of(&engine, &samples, &asked, &folder)
            });
        // A sample that fails must not end the run.
        if let Err(failure) = drawn {
            failure.mention();
        }
    })))
}

type Asked = (String, Conversation, Vec<RgbImage8>);

fn question(asked: &SampleQuestion, limits: &ImageLimits) -> Result<Asked, Failure> {
    let load = |path: &PathBuf| load_image(path, limits, Orientation::Upright);
    let picture = asked.image.as_ref().map(load).transpose();
    let picture = picture.map_err(ProcessorError::from)?;
    let pictures: Vec<RgbImage8> = picture.into_iter().collect();
    let turns = [(Role::User, asked.question.as_str())];
    let conversation = Conversation::from_text(None, &turns, pictures.len());
    let conversation = conversation.map_err(ProcessorError::from)?;
    Ok((asked.question.clone(), conversation, pictures))
}

fn samples_of(
    engine: &Engine,
    samples: &SamplesConfig,
    asked: &[Asked],
    folder: &Path,
) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|error| Failure::io(folder, "create", &error))?;
    for (number, prompt) in samples.prompts.iter().enumerate() {
        let options = DrawOptions { first: number as u64, ..DrawOptions::default() };
        let drawn =
            engine.generate(std::slice::from_ref(prompt), &options, |_| interrupt::flow())?;
        let Some(picture) = drawn.pictures.first() else { return Ok(()) };
        let png = picture.image.to_png().map_err(ProcessorError::from)?;
        pictures::write(&folder.join(format!("{number}.png")), &png)?;
    }
    let mut lines = String::new();
    for (question, conversation, images) in asked {
        let options = AskOptions { max_new_tokens: ANSWER, ..AskOptions::default() };
        let on_text = |_: &str| -> ControlFlow<()> { interrupt::flow() };
        let reply = engine.ask((conversation, images), &options, on_text)?;
        lines += &format!("{}\n", json!({ "question": question, "answer": reply.text }));
    }
    if !lines.is_empty() {
        pictures::write(&folder.join("answers.jsonl"), lines.as_bytes())?;
    }
    report::note(&format!("samples in {}", folder.display()));
    Ok(())
}
