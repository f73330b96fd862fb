//! From an adapter folder to the layers of a model.
//!
//! A layer is found by its name in either dialect of [`keys`]; adapters of the bare language model,
//! as people train them, are named without what comes before it. Query, key and value of the vision
//! tower are one layer here and three in Hugging Face's dialect.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::tensor::DType;

use super::error::{AdapterError, Misfit};
use super::factors::Factors;
use super::files::{AdapterFiles, Pair};
use crate::checkpoint::keys::{self, Dropped, Import};
use crate::checkpoint::{CheckpointError, LazyTensor, Limits, Naming, cast, lazy};
use crate::error::Error;
use crate::janus::{Janus, Parts};
use crate::linear::Linear;

/// What was put into a model.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterReport {
    /// The folder.
    pub dir: PathBuf,
    /// The model it was made for, as it says itself.
    pub base: Option<String>,
    /// Layers that it changes, in the order of the model.
    pub layers: Vec<AttachedLayer>,
    /// Layers that were left out, each with the reason: those of a half that was not loaded.
    pub dropped: Vec<Dropped>,
}

/// A layer and its change.
#[derive(Clone, Debug, PartialEq)]
pub struct AttachedLayer {
    /// Canonical name.
    pub name: String,
    /// r.
    pub rank: usize,
    /// What B·A is multiplied by.
    pub scale: f64,
}

impl AdapterReport {
    /// The smallest and the largest rank.
    pub fn ranks(&self) -> (usize, usize) {
        let ranks = || self.layers.iter().map(|layer| layer.rank);
        (ranks().min().unwrap_or(0), ranks().max().unwrap_or(0))
    }
}

impl Janus {
    /// Puts an adapter on the model, in place of any that it has. Factors keep their bits in f32.
    ///
    /// # Errors
    /// Those of [`AdapterFiles::open`], and every layer that is not there or of another shape, in
    /// one error; the model is then as it was.
    pub fn load_adapter(&mut self, dir: &Path, limits: &Limits) -> Result<AdapterReport, Error> {
        self.put(&AdapterFiles::open(dir, limits)?, true)
    }

    /// Puts an adapter on the model beside those that it has: on a layer that has one, both add up.
    ///
    /// # Errors
    /// As for [`Janus::load_adapter`].
    pub fn add_adapter(&mut self, dir: &Path, limits: &Limits) -> Result<AdapterReport, Error> {
        self.put(&AdapterFiles::open(dir, limits)?, false)
    }

    fn put(&mut self, files: &AdapterFiles, alone: bool) -> Result<AdapterReport, Error> {
        let found = self.locate(files)?;
        let mut changes = HashMap::new();
        for (layer, places) in found.layers {
            changes.insert(layer, change(&places, files)?);
        }
        let mut layers = Vec::with_capacity(changes.len());
        for (name, linear) in self.linears_mut() {
            if alone {
                linear.lora = None;
            }
            let Some(change) = changes.remove(&name) else { continue };
            layers.push(AttachedLayer { name, rank: change.rank, scale: change.scale });
            let change = match Factors::of(linear) {
                Some(before) => before.and(change),
                None => change,
            };
            linear.lora = Some(change.lora(&linear.weight.lazy_device()));
        }
        let elements = |name: String, change: Factors| (name, change.a.len() + change.b.len());
        let absent = changes.into_iter().map(|(name, change)| elements(name, change));
        let absent = absent.map(|(name, elements)| Dropped { name, reason: ABSENT, elements });
        let mut dropped: Vec<Dropped> = absent.chain(found.dropped).collect();
        dropped.sort_by(|a, b| a.name.cmp(&b.name));
        let base = files.config.base.clone();
        Ok(AdapterReport { dir: files.dir.clone(), base, layers, dropped })
    }

    /// The layer of each pair, and whether it fits there.
    fn locate<'a>(&self, files: &'a AdapterFiles) -> Result<Located<'a>, AdapterError> {
        let mut whole = self.config().init(Parts::All, self.precision(), &self.device());
        let sides = |(name, linear): (String, &mut Linear)| {
            let shape = linear.weight.lazy_shape();
            (name, [shape[0], shape[1]])
        };
        let known = whole.linears_mut().into_iter().map(sides).collect();
        let mut located = Located::default();
        files.pairs.iter().for_each(|pair| located.pair(pair, &known));
        files.copies.iter().for_each(|(module, tensor)| located.copy(module, tensor, &known));
        match located.problems.is_empty() {
            true => Ok(located),
            false => {
                let (path, problems) = (files.dir.clone(), located.problems);
                Err(AdapterError::Misfit { path, problems })
            }
        }
    }
}

const ABSENT: &str = "of the half of the model that is not loaded";
const COPY: &str = "the model's own weight, which an adapter leaves as it is";

/// Pairs by canonical layer, with the third that each is of.
#[derive(Default)]
struct Located<'a> {
    layers: BTreeMap<String, Vec<(Option<usize>, &'a Pair)>>,
    dropped: Vec<Dropped>,
    problems: Vec<Misfit>,
}

impl<'a> Located<'a> {
    fn pair(&mut self, pair: &'a Pair, known: &Sides) {
        match place(&pair.module, known) {
            Place::Layer { layer, third } => {
                let [output, input] = known[&layer];
                let output = if third.is_some() { output / 3 } else { output };
                self.problems.extend(misfit(pair, output, input));
                self.layers.entry(layer).or_default().push((third, pair));
            }
            Place::Dropped(reason) => {
                let elements = pair.a.shape.num_elements() + pair.b.shape.num_elements();
                self.dropped.push(Dropped { name: pair.module.clone(), reason, elements });
            }
            Place::Nowhere => self.problems.push(Misfit::NoLayer { module: pair.module.clone() }),
        }
    }

    fn copy(&mut self, module: &str, tensor: &LazyTensor, known: &Sides) {
        let Place::Layer { layer, third: None } = place(module, known) else {
            return self.problems.push(Misfit::NoLayer { module: module.to_owned() });
        };
        let [output, input] = known[&layer];
        let (name, found) = (tensor.name.clone(), tensor.shape.to_vec());
        if found == [output, input] {
            self.dropped.push(Dropped { name, reason: COPY, elements: output * input });
        } else {
            let expected = [Some(output), Some(input)];
            self.problems.push(Misfit::Shape { tensor: name, expected, found });
        }
    }
}

/// Height and width of every linear layer.
type Sides = HashMap<String, [usize; 2]>;

enum Place {
    Layer { layer: String, third: Option<usize> },
    Dropped(&'static str),
    Nowhere,
}

/// Where a module of the file is in the model.
fn place(module: &str, known: &Sides) -> Place {
    for outer in ["", "language_model.", "language_model.model."] {
        // Original names are none of Hugging Face's, and pass through.
        let name = format!("{outer}{module}.weight");
        let (name, third) = match keys::import(&name, Naming::HuggingFace) {
            Import::Whole(name) => (name, None),
            Import::Third(name, third) => (name, Some(third)),
            Import::Drop(reason) => return Place::Dropped(reason),
            Import::Unsqueeze(_) => continue,
        };
        let layer = name.trim_end_matches(".weight");
        if known.contains_key(layer) {
            return Place::Layer { layer: layer.to_owned(), third };
        }
    }
    Place::Nowhere
}

/// What is wrong with a pair for a layer `[out, in]`.
fn misfit(pair: &Pair, output: usize, input: usize) -> Option<Misfit> {
    let rank = pair.rank();
    // No change needs more than the shorter side; more than both together is a mistake.
    if rank > output + input {
        let module = pair.module.clone();
        return Some(Misfit::Rank { module, rank, sides: [output, input] });
    }
    let halves = [(&pair.a, [rank, input]), (&pair.b, [output, rank])];
    halves.into_iter().find_map(|(tensor, expected)| {
        let found = tensor.shape.to_vec();
        let misfit = |found| Misfit::Shape {
            tensor: tensor.name.clone(),
            expected: expected.map(Some),
            found,
        };
        (found != expected).then(|| misfit(found))
    })
}

/// The change of one layer, from all pairs that are of it.
fn change(places: &[(Option<usize>, &Pair)], files: &AdapterFiles) -> Result<Factors, Error> {
    let mut thirds: [Option<Factors>; 3] = Default::default();
    let mut rest = Vec::new();
    for (third, pair) in places {
        let factors = read(pair, files)?;
        match third {
            None => rest.push(factors),
            // Two names for one third: both are meant.
            Some(third) => match thirds[*third].take() {
                Some(before) => thirds[*third] = Some(before.and(factors)),
                None => thirds[*third] = Some(factors),
            },
        }
    }
    match thirds {
        [Some(q), Some(k), Some(v)] => rest.push(Factors::joined([q, k, v])),
        thirds => {
            let placed = thirds.into_iter().enumerate();
            rest.extend(placed.filter_map(|(i, third)| third.map(|third| third.in_third(i))));
        }
    }
    let first = rest.into_iter().reduce(Factors::and);
    // There is a pair for every layer that is asked for.
    first.ok_or_else(|| AdapterError::Nothing.into())
}

fn read(pair: &Pair, files: &AdapterFiles) -> Result<Factors, CheckpointError> {
    let values = |tensor: &LazyTensor| -> Result<Vec<f32>, CheckpointError> {
        let bytes = lazy::draw(&cast(tensor.clone(), DType::F32))?;
        let mut values = Vec::with_capacity(tensor.shape.num_elements());
        lazy::floats(&bytes, DType::F32, |value| values.push(value));
        Ok(values)
    };
    let rank = pair.rank();
    let scale = files.config.scale_of(&pair.module, rank);
    let (input, output) = (pair.a.shape[1], pair.b.shape[0]);
    Ok(Factors { rank, input, output, a: values(&pair.a)?, b: values(&pair.b)?, scale })
}
