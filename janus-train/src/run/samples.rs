//! What the tests of this module save.

use janus_model::JanusConfig;

use super::{Identity, State};
use crate::config::{GuardConfig, OnNan, TrainConfig};
use crate::spikes::Guard;

/// Of the first recipe.
pub fn identity() -> Identity {
    let stage = TrainConfig::recipe("janus-pro-1b-stage1").expect("a recipe");
    Identity::new(&JanusConfig::pro_1b(), &stage, "content")
}

/// Before the first step.
pub fn state() -> State {
    let config = GuardConfig { window: 8, sigma: 6.0, skips: 2, within: 9, on_nan: OnNan::Skip };
    State::new(7, Guard::new(config))
}
