//! `janus eval scenes`: a model draws and answers in a small world, and an exact judge marks it.
//!
//! ```text
//! seed ─ exam ─► prompts ─ engine.draw ─► judge ─┐
//!           └──► tasks ─ engine.ask_batch ───────┴─► Marks ─► JSON, text, sheet, details
//! ```

use std::fmt::Write;

use burn::tensor::{Tensor, TensorData};
use image::{Rgb, RgbImage};
use janus_infer::generate::pictures as from_codes;
use janus_infer::{
    AskOptions, DrawEvent, FinishReason, Guidance, Manner, Order, Question, Sampler, Sampling,
};
use janus_model::Parts;
use janus_model::processor::{Conversation, ProcessorError, RgbImage8, Role};
use janus_train::scenes::exam::{CATEGORIES, Marks, Share, Task, prompts, tasks};
use janus_train::scenes::judge::{Found, Prompt};
use janus_train::scenes::{About, Colour, Shape};
use janus_train::tokenizer::augment::middle;
use serde_json::{Map, Value, json};

use crate::args::EvalScenesArgs;
use crate::choice::naming;
use crate::formats::{Encoding, Format};
use crate::interrupt;
use crate::model::{Loaded, usual_guidance};
use crate::pictures;
use crate::progress::Items;
use crate::report::{self, Exit, Failure, Verdict};
use crate::sheet::sheet;

/// Groups of pictures that are ordered together.
const GROUPS: usize = 64;
/// Prompts of each category on the sheet.
const SHOWN: usize = 6;

/// Runs the command.
pub fn run(args: &EvalScenesArgs) -> Result<Verdict, Failure> {
    let manner = manner(args)?;
    let weight = manner.guidance.weight;
    check_files(args)?;
    let parts = match (args.prompts, args.questions) {
        (0, 0) => {
            let message = "--prompts 0 and --questions 0: there is nothing to measure";
            return Err(Failure::new(Exit::Usage, message));
        }
        (_, 0) => Parts::Generation,
        (0, _) => Parts::Understanding,
        _ => Parts::All,
    };
    interrupt::listen();
    let loaded = Loaded::open(&args.model, parts)?;
    let mut exam = Exam { args, loaded: &loaded, done: Done::default() };
    let complete = exam.draw(manner)? && exam.answer()?;
    let done = exam.done;
    if !complete {
        report::note("stopped: the marks are those of what was done");
    }
    done.write_files(args)?;
    match args.json {
        true => {
            let told = as_json(args, weight, &done.marks, (complete, &loaded.device));
            report::print_json(&naming(&loaded.adapters, told))?;
        }
        false => report::print(&as_text(&done.marks))?,
    }
    Ok(if complete { Verdict::Yes } else { Verdict::Interrupted })
}

/// How pictures are drawn; how many together is found out later.
fn manner(args: &EvalScenesArgs) -> Result<Manner, Failure> {
    let EvalScenesArgs { temperature, top_k, top_p, .. } = *args;
    let weight = match args.cfg {
        Some(weight) => weight,
        None => usual_guidance(&args.model)?,
    };
    let manner = Manner {
        guidance: Guidance::words(weight),
        sampling: Sampling { temperature, top_k, top_p, repetition_penalty: None },
        at_once: 1,
    };
    manner.guidance.validate()?;
    manner.sampling.validate()?;
    Ok(manner)
}

/// Before anything is drawn: an hour of work must not end with "file exists".
fn check_files(args: &EvalScenesArgs) -> Result<(), Failure> {
    let cannot =
        |message: String, hint: &str| Err(Failure::new(Exit::CannotCreate, message).hint(hint));
    if let Some(path) = args.sheet.as_deref().filter(|path| Format::of(path).is_none()) {
        let path = path.display();
        let message = format!("{path}: the name of the sheet must end in .png, .jpg or .webp");
        return Err(Failure::new(Exit::Usage, message).hint("for example --sheet samples.png"));
    }
    if args.sheet.is_some() && args.prompts == 0 {
        let message = "--sheet shows what is drawn, and --prompts 0 draws nothing";
        return Err(Failure::new(Exit::Usage, message));
    }
    for path in args.sheet.iter().chain(&args.details) {
        if path.exists() {
            let message = format!("{} exists", path.display());
            return cannot(message, "choose another name, or remove it first");
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            let message = format!("{}: no such folder", folder.display());
            return cannot(message, "make it first");
        }
    }
    Ok(())
}

/// What there is to show so far.
#[derive(Default)]
struct Done {
    marks: Marks,
    /// For the sheet.
    kept: Vec<RgbImage8>,
    /// Lines.
    details: String,
}

impl Done {
    fn detail(&mut self, wanted: bool, line: impl FnOnce() -> Value) {
        if wanted {
            let _ = writeln!(self.details, "{}", line());
        }
    }

    fn write_files(&self, args: &EvalScenesArgs) -> Result<(), Failure> {
        if let Some(path) = &args.details {
            pictures::write(path, self.details.as_bytes())?;
        }
        let format = args.sheet.as_ref().and_then(|path| Some((path, Format::of(path)?)));
        if let (Some((path, format)), Some(sheet)) = (format, sheet(&self.kept)) {
            let encoding = Encoding { format, quality: Encoding::QUALITY };
            pictures::write(path, &encoding.encode(&sheet, None)?)?;
        }
        Ok(())
    }
}

struct Exam<'a> {
    args: &'a EvalScenesArgs,
    loaded: &'a Loaded,
    done: Done,
}

impl Exam<'_> {
    /// Draws all pictures and marks each as soon as it is finished; false where it was interrupted.
    fn draw(&mut self, mut manner: Manner) -> Result<bool, Failure> {
        let (args, images) = (self.args, usize::from(self.args.images));
        let prompts = prompts(args.seed, args.prompts as usize);
        if args.ceiling {
            return self.give_back(&prompts);
        }
        let all = prompts.len() * images;
        if all == 0 {
            return Ok(true);
        }
        manner.at_once = match args.at_once {
            Some(count) => usize::from(count),
            None => self.at_once(&prompts, manner.guidance, all)?,
        };
        let mut items = Items::new("drawn", 0, all);
        let numbers: Vec<usize> = (0..all).collect();
        // Some at a time: the orders of a long exam would fill the memory.
        for some in numbers.chunks(manner.at_once.saturating_mul(GROUPS)) {
            let order = |number: &usize| Order {
                prompt: prompts[number / images].text.clone(),
                sampler: Sampler { seed: args.seed, stream: *number as u64 },
            };
            let orders: Vec<Order> = some.iter().map(order).collect();
            let drawn = self.loaded.engine.draw(&orders, &manner, |event| {
                match event {
                    DrawEvent::Step(progress) => {
                        let (done, total) = (progress.step.done, progress.step.total);
                        items.show(&format!(", code {done} of {total} of the next"));
                    }
                    DrawEvent::Finished(picture) => {
                        items.count();
                        let number = some[picture.prompt];
                        self.mark(&prompts[number / images], number, picture.image);
                    }
                }
                interrupt::flow()
            });
            let complete = drawn.inspect_err(|_| items.finish())?;
            if !complete || interrupt::raised() {
                break;
            }
        }
        items.finish();
        Ok(self.done.marks.exact.of == all as u64)
    }

    /// Marks the true pictures as the image tokenizer gives them back; false where it was
    /// interrupted.
    fn give_back(&mut self, prompts: &[Prompt]) -> Result<bool, Failure> {
        let engine = &self.loaded.engine;
        let side = engine.janus().config().gen_vision.image_size;
        let mut items = Items::new("given back", 0, prompts.len());
        for (number, prompt) in prompts.iter().enumerate() {
            if interrupt::raised() {
                break;
            }
            let truth = RgbImage8::new(
                side,
                side,
                prompt.scene.clone().plain().draw(side as u32).into_raw(),
            );
            let pixels = middle(&truth.map_err(ProcessorError::from)?, side).data;
            let pixels = TensorData::new(pixels, [1, 3, side, side]);
            let pixels = Tensor::from_data(pixels, &engine.janus().device());
            let codes = engine.janus().encode_codes(pixels)?.into_data().convert::<i32>();
            for picture in from_codes(engine.janus(), &[codes.iter::<i32>().collect()], 1)? {
                items.count();
                self.mark(prompt, number * usize::from(self.args.images), picture);
            }
        }
        items.finish();
        Ok(self.done.marks.exact.of == prompts.len() as u64)
    }

    /// How many pictures fit into memory together, with the longest of the prompts.
    fn at_once(
        &self,
        prompts: &[Prompt],
        guidance: Guidance,
        wanted: usize,
    ) -> Result<usize, Failure> {
        let mut longest = 0;
        for prompt in prompts {
            longest = longest.max(self.loaded.engine.prompt_tokens(&prompt.text, 0)?);
        }
        Ok(self.loaded.pictures_at_once(longest, guidance, wanted))
    }

    fn mark(&mut self, prompt: &Prompt, number: usize, image: RgbImage8) {
        let (args, images) = (self.args, usize::from(self.args.images));
        let (pixels, width) = (image.pixels(), image.width());
        let picture = RgbImage::from_fn(width as u32, image.height() as u32, |x, y| {
            let at = 3 * (y as usize * width + x as usize);
            Rgb([pixels[at], pixels[at + 1], pixels[at + 2]])
        });
        let (right, found) = self.done.marks.picture(prompt, &picture);
        self.done.detail(args.details.is_some(), || {
            json!({
                "category": prompt.scene.theme.name(), "prompt": prompt.text, "right": right,
                "index": number, "found": found.iter().map(described).collect::<Vec<_>>(),
            })
        });
        let (first, of_category) =
            (number.is_multiple_of(images), number / images % args.prompts as usize);
        if args.sheet.is_some() && first && of_category < SHOWN {
            self.done.kept.push(image);
        }
    }

    /// Answers all questions; false where it was interrupted.
    fn answer(&mut self) -> Result<bool, Failure> {
        let args = self.args;
        // As large as the model looks at them.
        let size = self.loaded.engine.janus().config().vision.image_size.clamp(16, 1024);
        let tasks = tasks(args.seed, args.questions as usize);
        let mut items = Items::new("answered", 0, tasks.len());
        let options =
            AskOptions { max_new_tokens: args.max_new_tokens.into(), ..AskOptions::default() };
        for some in tasks.chunks(args.batch_size.into()) {
            let asked: Vec<(Conversation, [RgbImage8; 1])> =
                some.iter().map(|task| ask(task, size)).collect::<Result<_, _>>()?;
            let questions: Vec<Question<'_>> =
                asked.iter().map(|(conversation, images)| (conversation, &images[..])).collect();
            let engine = &self.loaded.engine;
            let replies = engine.ask_batch(&questions, &options, |_, _| interrupt::flow())?;
            if replies.iter().any(|reply| reply.finish == FinishReason::Cancelled) {
                items.finish();
                return Ok(false);
            }
            for (Task { asked, .. }, reply) in some.iter().zip(replies) {
                items.count();
                let right = self.done.marks.answer(asked, &reply.text);
                self.done.detail(args.details.is_some(), || {
                    json!({
                        "about": asked.about.name(), "question": asked.question, "right": right,
                        "expected": asked.answer, "answer": reply.text,
                    })
                });
            }
            if interrupt::raised() {
                break;
            }
        }
        items.finish();
        let answered: u64 = self.done.marks.answers.values().map(|share| share.of).sum();
        Ok(answered == tasks.len() as u64)
    }
}

/// The question with its picture, as in a first turn.
fn ask(task: &Task, size: usize) -> Result<(Conversation, [RgbImage8; 1]), Failure> {
    let turns = [(Role::User, task.asked.question.as_str())];
    let conversation = Conversation::from_text(None, &turns, 1).map_err(ProcessorError::from)?;
    let picture = task.scene.draw(size as u32);
    let image = RgbImage8::new(size, size, picture.into_raw());
    Ok((conversation, [image.map_err(ProcessorError::from)?]))
}

fn described(found: &Found) -> Value {
    json!({
        "shape": found.shape.map(Shape::name), "colour": found.colour.map(Colour::name),
        "centre": found.centre, "radius": found.radius,
    })
}

/// The mean, then every part of it.
fn shares<'a>(
    overall: Option<f64>,
    parts: impl Iterator<Item = (&'a str, Option<Share>)>,
) -> Map<String, Value> {
    let part = |(name, share): (&str, Option<Share>)| {
        (name.to_owned(), json!(share.and_then(Share::value)))
    };
    [("overall".to_owned(), json!(overall))].into_iter().chain(parts.map(part)).collect()
}

fn generation(marks: &Marks) -> Map<String, Value> {
    let parts = CATEGORIES.map(|theme| (theme.name(), marks.pictures.get(&theme).copied()));
    shares(marks.drawing(), parts.into_iter())
}

fn answers(marks: &Marks) -> Map<String, Value> {
    let parts = About::ALL.map(|about| (about.name(), marks.answers.get(&about).copied()));
    shares(marks.answering(), parts.into_iter())
}

fn as_json(
    args: &EvalScenesArgs,
    weight: f32,
    marks: &Marks,
    (complete, device): (bool, &str),
) -> Value {
    json!({
        "generation": generation(marks), "answers": answers(marks), "exact": marks.exact.value(),
        "complete": complete, "ceiling": args.ceiling, "seed": args.seed, "device": device,
        "prompts": args.prompts, "images": args.images, "questions": args.questions,
        "cfg": weight, "temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p,
    })
}

fn as_text(marks: &Marks) -> String {
    let share = |share: Option<&Share>| share.copied().unwrap_or_default();
    let drawn = CATEGORIES.map(|theme| (theme.name(), share(marks.pictures.get(&theme))));
    let drawn: Vec<_> = drawn.into_iter().chain([("nothing else there", marks.exact)]).collect();
    let answered = About::ALL.map(|about| (about.name(), share(marks.answers.get(&about))));
    let parts = [table("generation", marks.drawing(), &drawn)];
    let parts = parts.into_iter().chain([table("answers", marks.answering(), &answered)]);
    parts.flatten().collect::<Vec<_>>().join("\n")
}

/// The mean, then every part of it; nothing where nothing was measured.
fn table(name: &str, overall: Option<f64>, parts: &[(&str, Share)]) -> Option<String> {
    let mut text = format!("{name:<20} {:.3}\n", overall?);
    for (name, share) in parts {
        if let Some(value) = share.value() {
            let _ = writeln!(text, "  {name:<18} {value:.3}  {} of {}", share.right, share.of);
        }
    }
    Some(text)
}
