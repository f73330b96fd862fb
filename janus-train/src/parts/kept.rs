//! What a checkpoint holds of a part beside its model: other networks, weights, moments.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use janus_model::checkpoint::{Checkpoint, CheckpointError, LazyTensor, Limits, SaveOptions, save};
use janus_model::load::fill_part;

use crate::optim::AdamW;
use crate::run::{Role, RunError, Staging, moments};
use crate::strategy::StepError;
use crate::weights::Pupil;

/// Puts networks that are no part of the model into a folder of their own.
pub(crate) fn write(
    staging: &mut Staging,
    name: &str,
    tensors: Vec<LazyTensor>,
) -> Result<(), RunError> {
    staging.folder(Role::Other, name, |folder| {
        let saved = save(folder, tensors, &SaveOptions::default());
        saved.map(drop).map_err(|error| janus_model::Error::from(error).into())
    })
}

/// All tensors of a folder.
pub(crate) fn read(folder: &Path) -> Result<Vec<LazyTensor>, CheckpointError> {
    Ok(Checkpoint::open(folder, &Limits::default())?.canonical()?.tensors)
}

/// Puts the moments of a part into a file.
pub(crate) fn write_moments<M: Module>(
    staging: &mut Staging,
    name: &str,
    pupil: &Pupil<M>,
) -> Result<(), RunError> {
    let (record, learners) = (pupil.optimizer.to_record(), moments::learners(pupil.part()));
    staging.file(Role::Moments, name, |path| moments::write(path, record, &learners))
}

/// The same part with the weights and moments of a checkpoint, made to learn by `ready`.
pub(crate) fn resumed<M: Module>(
    pupil: &Pupil<M>,
    prefix: &str,
    tensors: Vec<LazyTensor>,
    (adam, moments): (AdamW, &PathBuf),
    ready: impl FnOnce(M) -> M,
) -> Result<Pupil<M>, StepError> {
    let mut part = pupil.part().clone();
    fill_part(&mut part, prefix, tensors, moments)?;
    let part = ready(part);
    let record = moments::read(moments, &moments::learners(&part))?;
    let optimizer: ModuleOptimizer = adam.into();
    Ok(Pupil::new(part, optimizer.load_record(record)))
}

/// A part with the weights of a folder.
pub(crate) fn filled<M: Module>(
    mut part: M,
    prefix: &str,
    tensors: Vec<LazyTensor>,
    path: Option<&Path>,
) -> Result<M, janus_model::Error> {
    fill_part(&mut part, prefix, tensors, path.unwrap_or(Path::new("")))?;
    Ok(part)
}
