//! What a part's training takes, from sizes alone.

use serde::Serialize;

/// What a run will take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Description {
    /// What the run is called.
    pub name: String,
    /// Name and parameters of each network, and whether it is kept in the end.
    pub networks: Vec<Network>,
    /// Optimizer steps.
    pub steps: u64,
    /// Samples of a step.
    pub samples: u64,
    /// Samples of all sources, once each.
    pub data: u64,
    /// Bytes of memory, by what they are for.
    pub memory: Memory,
    /// Bytes of one checkpoint.
    pub checkpoint: u64,
}

/// A network of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Network {
    /// As a checkpoint has it.
    pub name: String,
    /// How many numbers it has.
    pub parameters: u64,
    /// Whether it is part of the model that comes of the run.
    pub kept: bool,
}

/// Bytes of memory, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All weights.
    pub weights: u64,
    /// Gradients, and their sum where a step is computed in several parts.
    pub gradients: u64,
    /// What the optimizers remember.
    pub optimizer: u64,
    /// What backward needs of the forward pass: an estimate.
    pub activations: u64,
}

impl Memory {
    /// Everything at once.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.activations
    }
}

impl Description {
    /// Of networks that all train in f32; `extra` are numbers that are kept beside them.
    pub(crate) fn of(
        common: &super::Common,
        networks: Vec<Network>,
        (data, extra, activations): (u64, u64, u64),
    ) -> Self {
        let trained: u64 = networks.iter().map(|network| network.parameters).sum();
        let several = if common.batch.size > common.batch.rows { 2 } else { 1 };
        let memory = Memory {
            weights: 4 * (trained + extra),
            gradients: 4 * trained * several,
            optimizer: 8 * trained,
            activations,
        };
        Self {
            name: common.name.to_owned(),
            networks,
            steps: common.steps as u64,
            samples: common.batch.size as u64,
            data,
            memory,
            checkpoint: memory.weights + memory.optimizer,
        }
    }
}
