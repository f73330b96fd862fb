//! Scenes as files, in the native format (`docs/training-data.md`).
//!
//! ```text
//! pictures/000/000123.png   at most a thousand in a folder
//! plain/000/000123.png      the same scene on an even ground, without noise
//! tiles/000/000123.png      4×4 of the 8×8 squares of that one, around an object
//! draw.jsonl                a caption, and the plain picture to be drawn
//! relations.jsonl           the same of two things by how they lie, told from either end equally often
//! pairs.jsonl               a picture, and a caption as the answer
//! ask.jsonl                 a picture, questions and answers
//! places.jsonl              a picture, and where things are
//! claims.jsonl              a picture, and what is true of it and what is not
//! map.jsonl                 a picture, and what lies in each field of a grid
//! fields.jsonl              the same with colours and places, for an encoder that learns alone
//! tiles.jsonl               the tiles, for an image tokenizer: most of a whole picture is ground
//! words.jsonl               texts of this world, without pictures
//! ```
//! Everything is written beside the folder and moved there at the end: whole, or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use image::codecs::png::PngEncoder;
use image::{ImageEncoder, RgbImage};
use janus_model::ErrorKind;
use janus_model::processor::{DEFAULT_SYSTEM_PROMPT, IMAGE_PLACE};
use rayon::prelude::*;
use serde::Serialize;

use super::captions::{caption, prompt};
use super::chance::Chance;
use super::map::{fields, map};
use super::questions::{Asked, claims, places, questions};
use super::scene::{SQUARE, SQUARES, Scene, Theme};
use super::split::Split;
use super::told::told;

/// Pictures in a folder.
const FOLDER: u64 = 1000;
/// Folders of pictures.
const KINDS: [&str; 3] = ["pictures", "plain", "tiles"];
/// The caption of every tile.
const TILE: &str = "a part of a picture";
/// Scenes that are drawn at once.
const CHUNK: u64 = 250;

/// Which scenes, and how large their pictures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataSet {
    /// What the scenes are drawn from.
    pub seed: u64,
    /// What they are for.
    pub split: Split,
    /// How many.
    pub count: u64,
    /// Width and height of the pictures in pixels.
    pub size: u32,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Scenes, each with a picture, a caption to draw it from and one to describe it.
    pub scenes: u64,
    /// Questions.
    pub questions: u64,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum DataSetError {
    /// Something is there.
    #[error("{} exists and is not empty", path.display())]
    Occupied {
        /// Where.
        path: PathBuf,
    },
    /// The operating system's answer.
    #[error("{}: cannot write", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

impl DataSetError {
    /// What kind of problem it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Occupied { .. } => ErrorKind::Usage,
            Self::Io { .. } => ErrorKind::Io,
        }
    }
}

impl DataSet {
    /// Whether a folder could be written, before anything is done.
    ///
    /// # Errors
    /// [`DataSetError`].
    pub fn check(dir: &Path) -> Result<(), DataSetError> {
        let path = || dir.to_owned();
        let taken = match fs::read_dir(dir) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(source) if !dir.is_file() => {
                return Err(DataSetError::Io { path: path(), source });
            }
            Err(_) => true,
        };
        if taken { Err(DataSetError::Occupied { path: path() }) } else { Ok(()) }
    }

    /// Writes the folder. `watch` hears how many scenes are done, and may end it; then nothing is
    /// left, and the answer is `None`.
    ///
    /// # Errors
    /// [`DataSetError`]; nothing is left.
    pub fn write(
        &self,
        dir: &Path,
        mut watch: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Option<Written>, DataSetError> {
        Self::check(dir)?;
        let cannot = |source| DataSetError::Io { path: dir.to_owned(), source };
        let staging = Staging::beside(dir).map_err(cannot)?;
        let mut files = Files::create(&staging.0).map_err(cannot)?;
        let mut written = Written::default();
        while written.scenes < self.count {
            let chunk = written.scenes..(written.scenes + CHUNK).min(self.count);
            let texts = self.chunk(&staging.0, chunk.clone()).map_err(cannot)?;
            for text in &texts {
                files.put(text).map_err(cannot)?;
                written.questions += text.questions;
            }
            written.scenes = chunk.end;
            if watch(written.scenes).is_break() {
                return Ok(None);
            }
        }
        files.finish().and_then(|()| staging.publish(dir)).map_err(cannot)?;
        Ok(Some(written))
    }

    /// Writes the pictures of some scenes and gives their lines, in order.
    fn chunk(&self, dir: &Path, scenes: Range<u64>) -> io::Result<Vec<Texts>> {
        for folder in scenes.start / FOLDER..=(scenes.end - 1) / FOLDER {
            for kind in KINDS {
                fs::create_dir_all(dir.join(format!("{kind}/{folder:03}")))?;
            }
        }
        scenes.into_par_iter().map(|number| self.scene(dir, number)).collect()
    }

    fn scene(&self, dir: &Path, number: u64) -> io::Result<Texts> {
        let scene = Scene::new(self.seed, self.split, number);
        let path = |kind| format!("{kind}/{:03}/{number:06}.png", number / FOLDER);
        let paths = KINDS.map(path);
        let chance = |purpose| Chance::of(&[self.seed, self.split as u64, number, purpose]);
        let plain = scene.clone().plain().draw(self.size);
        save(&scene.draw(self.size), &dir.join(&paths[0]))?;
        save(&plain, &dir.join(&paths[1]))?;
        save(&tile(&scene, &plain, &mut chance(105)), &dir.join(&paths[2]))?;
        Texts::of(&scene, [&paths[0], &paths[1], &paths[2]], chance)
    }
}

fn save(picture: &RgbImage, path: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let (width, height) = picture.dimensions();
    PngEncoder::new(&mut file)
        .write_image(picture.as_raw(), width, height, image::ExtendedColorType::Rgb8)
        .map_err(io::Error::other)?;
    file.flush()
}

/// Half of a picture on either axis, cut along the squares that objects fill, with one of them whole.
fn tile(scene: &Scene, picture: &RgbImage, chance: &mut Chance) -> RgbImage {
    let object = chance.pick(&scene.objects);
    let (squares, half) = (SQUARES as u32, SQUARES as u32 / 2);
    let side = picture.width() / 2;
    let [left, top] = object.centre.map(|x| {
        let (first, end) =
            (((x - object.radius) / SQUARE) as u32, ((x + object.radius) / SQUARE).ceil() as u32);
        let (least, most) = (end.saturating_sub(half), first.min(half));
        (least + chance.below((most - least) as usize + 1) as u32) * picture.width() / squares
    });
    image::imageops::crop_imm(picture, left, top, side, side).to_image()
}

/// Files of lines.
const FILES: [&str; 10] =
    ["draw", "relations", "pairs", "ask", "places", "claims", "map", "fields", "tiles", "words"];

/// What is written about one scene.
struct Texts {
    /// A line for each of [`FILES`]; `None` where there is nothing to say.
    lines: [Option<String>; FILES.len()],
    questions: u64,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    content: String,
}

#[derive(Serialize)]
struct Line<'a> {
    messages: Vec<Message<'a>>,
    images: [&'a str; 1],
}

#[derive(Serialize)]
struct Plain<'a> {
    text: &'a str,
}

impl Texts {
    /// Its picture lies at the first path, plain at the second, a tile at the third; `chance` gives a
    /// row of draws for each purpose.
    fn of(
        scene: &Scene,
        [seen, drawn, tile]: [&str; 3],
        chance: impl Fn(u64) -> Chance,
    ) -> io::Result<Self> {
        let line = |path: &str, turns: Vec<(String, String)>| {
            let says = |(user, assistant)| {
                [("user", user), ("assistant", assistant)]
                    .map(|(role, content)| Message { role, content })
            };
            let messages = turns.into_iter().flat_map(says).collect();
            serde_json::to_string(&Line { messages, images: [path] })
        };
        // Questions about a picture, which comes with the first of them.
        let conversation = |asked: Vec<Asked>| {
            let place = |number| if number == 0 { IMAGE_PLACE } else { "" };
            let turns = asked.into_iter().enumerate();
            turns.map(|(i, asked)| (place(i).to_owned() + &asked.question, asked.answer)).collect()
        };
        let asked = questions(scene, &mut chance(103));
        let count = asked.len() as u64;
        let image = || IMAGE_PLACE.to_owned();
        let related = (scene.theme == Theme::Position).then(|| prompt(scene, &mut chance(106)));
        let some = |asked: Vec<Asked>| (!asked.is_empty()).then_some(asked);
        let places = some(places(scene, &mut chance(107)));
        let claims = some(claims(scene, &mut chance(108)));
        let grid = map(scene);
        Ok(Self {
            lines: [
                Some(line(drawn, vec![(caption(scene, &mut chance(101)), image())])?),
                related.map(|related| line(drawn, vec![(related, image())])).transpose()?,
                Some(line(seen, vec![(image(), caption(scene, &mut chance(102)))])?),
                Some(line(seen, conversation(asked))?),
                places.map(|places| line(seen, conversation(places))).transpose()?,
                claims.map(|claims| line(seen, conversation(claims))).transpose()?,
                Some(line(seen, vec![(image() + &grid.0, grid.1)])?),
                Some(line(seen, vec![(image(), fields(scene))])?),
                Some(line(tile, vec![(TILE.to_owned(), image())])?),
                Some(plain(&told(scene, &mut chance(104)))?),
            ],
            questions: count,
        })
    }
}

fn plain(text: &str) -> io::Result<String> {
    Ok(serde_json::to_string(&Plain { text })?)
}

/// The open files of lines.
struct Files(Vec<BufWriter<File>>);

impl Files {
    fn create(dir: &Path) -> io::Result<Self> {
        let create = |name| File::create(dir.join(format!("{name}.jsonl"))).map(BufWriter::new);
        let mut files = FILES.iter().map(create).collect::<io::Result<Vec<_>>>()?;
        // What the program itself writes into prompts: a vocabulary learnt from here knows it.
        if let Some(words) = files.last_mut() {
            for text in [DEFAULT_SYSTEM_PROMPT, "User:", "Assistant:"] {
                writeln!(words, "{}", plain(text)?)?;
            }
        }
        Ok(Self(files))
    }

    fn put(&mut self, texts: &Texts) -> io::Result<()> {
        for (file, line) in self.0.iter_mut().zip(&texts.lines) {
            if let Some(line) = line {
                writeln!(file, "{line}")?;
            }
        }
        Ok(())
    }

    fn finish(self) -> io::Result<()> {
        for file in self.0 {
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        }
        Ok(())
    }
}

/// An unfinished folder; removed with all its content unless published.
struct Staging(PathBuf);

impl Staging {
    fn beside(dir: &Path) -> io::Result<Self> {
        // Through its parts: "data/" and "." have no name of their own otherwise.
        let whole = std::path::absolute(dir)?;
        let parent = whole.parent().unwrap_or(&whole);
        let name = whole.file_name().unwrap_or_default().to_string_lossy();
        fs::create_dir_all(parent)?;
        let path = parent.join(format!(".{name}.tmp-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn publish(self, dir: &Path) -> io::Result<()> {
        // An empty folder gives way; anything else makes the rename fail.
        match fs::remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::rename(&self.0, dir),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Nothing is left after a success, and after a failure its cause matters more.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: DataSet = DataSet { seed: 3, split: Split::Valid, count: 600, size: 16 };

    #[test]
    fn whoever_stops_it_finds_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("a/b");
        let mut seen = Vec::new();
        let result = SET.write(&dir, |done| {
            seen.push(done);
            if done > 300 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(result.expect("no error"), None);
        assert_eq!(seen, [250, 500]);
        assert_eq!(fs::read_dir(folder.path().join("a")).expect("its parent").count(), 0);
    }

    #[test]
    fn pictures_are_those_of_the_scenes() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("set");
        let written = SET.write(&dir, |_| ControlFlow::Continue(())).expect("written");
        assert_eq!(written.expect("to the end").scenes, 600);
        for number in [0, 251, 599] {
            let path = dir.join(format!("pictures/000/{number:06}.png"));
            let picture = image::open(path).expect("a picture").to_rgb8();
            let scene = Scene::new(3, Split::Valid, number);
            assert_eq!(picture, scene.draw(16));
            let path = dir.join(format!("plain/000/{number:06}.png"));
            let plain = scene.plain().draw(16);
            assert_eq!(image::open(path).expect("a picture").to_rgb8(), plain);
            // A tile is somewhere in it.
            let path = dir.join(format!("tiles/000/{number:06}.png"));
            let tile = image::open(path).expect("a picture").to_rgb8();
            let at =
                |x: u32, y: u32| image::imageops::crop_imm(&plain, 2 * x, 2 * y, 8, 8).to_image();
            assert!((0..=4).any(|x| (0..=4).any(|y| at(x, y) == tile)), "{number}");
        }
        let text = fs::read_to_string(dir.join("ask.jsonl")).expect("questions");
        let questions = text.matches("\"user\"").count() as u64;
        assert_eq!(written.expect("to the end").questions, questions);
        // Not a second time into the same folder.
        let again = SET.write(&dir, |_| ControlFlow::Continue(()));
        assert!(matches!(again, Err(DataSetError::Occupied { .. })));
    }

    /// One object at least is whole in every tile, and squares are not cut.
    #[test]
    fn tiles_hold_an_object() {
        for number in 0..300 {
            let scene = Scene::new(3, Split::Train, number);
            // In place of a picture: where each pixel of it is.
            let places = RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8, y as u8, 0]));
            let tile = tile(&scene, &places, &mut Chance::of(&[number]));
            let [left, top, _] = tile.get_pixel(0, 0).0.map(f32::from);
            assert_eq!((tile.dimensions(), left % 8.0, top % 8.0), ((32, 32), 0.0, 0.0));
            let whole = |object: &super::super::Object| {
                let inside = |x: f32, start: f32| {
                    x - object.radius >= start && x + object.radius <= start + 32.0
                };
                inside(object.centre[0], left) && inside(object.centre[1], top)
            };
            assert!(scene.objects.iter().any(whole), "{scene:?}: {left} {top}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "mine").expect("a file");
        let error = SET.write(&file.join("set"), |_| ControlFlow::Continue(()));
        let error = error.expect_err("below a file");
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        let error = SET.write(&file, |_| ControlFlow::Continue(())).expect_err("a file");
        assert!(matches!(error, DataSetError::Occupied { .. }), "{error}");
    }
}
