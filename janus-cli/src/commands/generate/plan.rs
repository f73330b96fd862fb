//! What will be drawn, and into which files; decided before anything is loaded.

use std::path::{Path, PathBuf};

use janus_infer::{Order, Sampler};

use super::files::{self, Target};
use super::prompts::{self, Prompt};
use crate::args::GenerateArgs;
use crate::formats::{Encoding, Format};
use crate::report::{Exit, Failure};

/// Pictures of one run.
const PICTURES: usize = 100_000;
/// Pictures on one sheet.
const SHEET: usize = 256;

/// Every picture in its sequence, and the files beside them.
#[derive(Debug)]
pub struct Plan {
    pub orders: Vec<Order>,
    /// One per order.
    pub targets: Vec<Target>,
    /// One sheet of all.
    pub grid: Option<Target>,
    /// The picture being drawn.
    pub preview: Option<Target>,
    /// Pictures left out because their files exist.
    pub skipped: usize,
}

impl Plan {
    /// Reads the prompts, names the pictures, and refuses what cannot end well.
    ///
    /// # Errors
    /// Prompts that cannot be used; names that contradict each other or what is on disk.
    pub fn new(args: &GenerateArgs, seed: u64) -> Result<Self, Failure> {
        let mut plan = Self::empty(args)?;
        let prompts = match &args.prompts {
            Some(path) => prompts::read(path)?,
            None => vec![prompts::typed(args.prompt.as_deref().unwrap_or_default())?],
        };
        let count = usize::from(args.num_images);
        if prompts.len().saturating_mul(count) > PICTURES {
            let message = format!("{} prompts of {count} pictures are too many", prompts.len());
            let hint = format!("draw at most {PICTURES} pictures at a time");
            return Err(Failure::new(Exit::Usage, message).hint(hint));
        }
        for (number, prompt) in prompts.into_iter().enumerate() {
            let target = target(args, &prompt, number)?;
            plan.add(args, &prompt, &target, prompt.seed.unwrap_or(seed));
        }
        plan.check(args)?;
        Ok(plan)
    }

    /// One picture, decided elsewhere.
    ///
    /// # Errors
    /// A name that cannot be used.
    pub fn single(args: &GenerateArgs, order: Order) -> Result<Self, Failure> {
        let mut plan = Self::empty(args)?;
        plan.orders.push(order);
        plan.targets.push(Target::named(
            args.files.output.clone(),
            args.files.format,
            &args.files,
        )?);
        plan.check(args)?;
        Ok(plan)
    }

    fn empty(args: &GenerateArgs) -> Result<Self, Failure> {
        let beside = |path: &Option<PathBuf>| {
            path.clone().map(|path| Target::named(path, None, &args.files)).transpose()
        };
        Ok(Self {
            orders: Vec::new(),
            targets: Vec::new(),
            grid: beside(&args.files.grid)?,
            preview: beside(&args.watch.preview)?,
            skipped: 0,
        })
    }

    fn add(&mut self, args: &GenerateArgs, prompt: &Prompt, target: &Target, seed: u64) {
        let first = u64::from(args.first);
        for stream in first..first + u64::from(args.num_images) {
            let one = first == 0 && args.num_images == 1;
            let target = if one { target.clone() } else { target.numbered(stream + 1) };
            if args.files.skip_existing && target.path.is_file() {
                self.skipped += 1;
                continue;
            }
            let sampler = Sampler { seed, stream };
            self.orders.push(Order { prompt: prompt.text.clone(), sampler });
            self.targets.push(target);
        }
    }

    fn check(&self, args: &GenerateArgs) -> Result<(), Failure> {
        let jpeg = |target: &Target| target.encoding.format == Format::Jpeg;
        let all = || self.targets.iter().chain(&self.grid).chain(&self.preview);
        if args.files.quality.is_some() && self.skipped == 0 && !all().any(jpeg) {
            let message = "--quality is for JPEG, and no file is one";
            let hint = "leave it out, or write .jpg: PNG and WebP are exact";
            return Err(Failure::new(Exit::Usage, message).hint(hint));
        }
        if self.grid.is_some() && self.targets.len() > SHEET {
            let message =
                format!("{} pictures do not fit on one sheet of {SHEET}", self.targets.len());
            return Err(Failure::new(Exit::Usage, message).hint("leave --grid out, or draw less"));
        }
        let folder = args.files.output.as_path();
        let make = args.prompts.is_some() && files::must_make(folder)?;
        let force = args.files.force;
        // The earlier part of a series left these behind.
        let goes_on = args.first > 0 || args.files.skip_existing;
        let targets = self.targets.iter().map(|target| (target.path.as_path(), force));
        let beside = self.grid.iter().chain(&self.preview);
        let beside = beside.map(|target| (target.path.as_path(), force || goes_on));
        files::check(targets.chain(beside), make.then_some(folder))?;
        if make { files::make(folder) } else { Ok(()) }
    }

    /// Whether some file has room for a record.
    pub fn has_png(&self) -> bool {
        self.targets.iter().any(|target| target.encoding.format == Format::Png)
    }
}

/// Where the first picture of a prompt goes, before it is numbered.
fn target(args: &GenerateArgs, prompt: &Prompt, number: usize) -> Result<Target, Failure> {
    let files = &args.files;
    let Some(file) = &args.prompts else {
        return Target::named(files.output.clone(), files.format, files);
    };
    let Some(name) = &prompt.output else {
        let format = files.format.unwrap_or(Format::Png);
        let path = files.output.join(format!("{:04}.{}", number + 1, format.extension()));
        let quality = files.quality.unwrap_or(Encoding::QUALITY);
        return Ok(Target { path, encoding: Encoding { format, quality } });
    };
    let at = |problem: String| {
        let place = format!("{}:{}", file.display(), prompt.line);
        Failure::new(Exit::BadData, format!("{place}: {problem}"))
            .hint("for example \"output\": \"picture.png\"")
    };
    let name = files::plain_name(name).map_err(at)?;
    if Format::of(Path::new(name)).is_none() {
        return Err(at(format!("\"output\" must end in .png, .jpg or .webp, not {name:?}")));
    }
    Target::named(files.output.join(name), files.format, files)
}
