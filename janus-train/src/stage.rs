//! What trains: ordered path rules over the names of the checkpoint.
//!
//! ```toml
//! train = [["vision_model.**", "freeze"], ["aligner.**", "train"], …]
//! ```
//!
//! A pattern is a path of elements; `*` stands for one of them, `**` for any number, and the
//! whole name must match, so that `aligner.**` leaves `gen_aligner` alone. The first rule that
//! matches decides. Nothing is left to a default: a parameter without a rule is an error, and so
//! is a rule that decides nothing, which is a typing mistake or hidden behind an earlier one.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use janus_model::Janus;
use janus_model::load::canonical_name;
use janus_model::parameters::parameters;
use serde::{Deserialize, Serialize};

/// What becomes of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It gets gradients and is updated.
    Train,
    /// Its bits never change.
    Freeze,
}

/// A path of elements, `*` and `**`. See the [module documentation](self).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Vec<String>);

/// A pattern and what it decides; a list of two in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule(pub Pattern, pub Action);

/// Rules in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rules(pub Vec<Rule>);

/// How much of one part of the model trains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// First element of its names, as in `vision_model`.
    pub name: String,
    /// Numbers that are updated.
    pub trained: u64,
    /// Numbers that stay.
    pub frozen: u64,
}

/// Why rules cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// A pattern is not a path.
    #[error("rule `{pattern}`: {why}")]
    Pattern {
        /// As written.
        pattern: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Parameters that no rule decides.
    #[error("no rule covers {} of the parameters: {}", names.len(), few(names))]
    Uncovered {
        /// Their names.
        names: Vec<String>,
    },
    /// Rules that decide nothing.
    #[error("no parameter is decided by {}", few(patterns))]
    Idle {
        /// Their patterns.
        patterns: Vec<String>,
    },
    /// Everything is frozen.
    #[error("the rules freeze every parameter")]
    NothingTrains,
}

impl StageError {
    /// What can be done about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Pattern { .. } => {
                "write elements with dots between, as in `aligner.layers.*.bias`"
            }
            Self::Uncovered { .. } => "add a rule for them, or end with [\"**\", \"freeze\"]",
            Self::Idle { .. } => {
                "remove it, correct it, or move it before the rule that hides it; names are those \
                 of the original checkpoint, as in `aligner.layers.0.weight`"
            }
            Self::NothingTrains => "let at least one rule say \"train\"",
        }
    }
}

/// The first names and how many more there are.
pub(crate) fn few(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text =
        names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

impl TryFrom<String> for Pattern {
    type Error = StageError;

    fn try_from(pattern: String) -> Result<Self, StageError> {
        let elements: Vec<String> = pattern.split('.').map(str::to_owned).collect();
        let wild = |e: &str| e == "*" || e == "**";
        let why = if elements.iter().any(String::is_empty) {
            "an element is empty"
        } else if elements.iter().any(|e| e.contains('*') && !wild(e)) {
            "`*` and `**` stand for whole elements"
        } else {
            return Ok(Self(elements));
        };
        Err(StageError::Pattern { pattern, why })
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.join(".")
    }
}

impl Pattern {
    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<&str> = name.split('.').collect();
        matches(&self.0, &name)
    }
}

fn matches(pattern: &[String], name: &[&str]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return name.is_empty() };
    match first.as_str() {
        "**" => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        "*" => !name.is_empty() && matches(rest, &name[1..]),
        word => name.first() == Some(&word) && matches(rest, &name[1..]),
    }
}

impl Rules {
    /// Rules from pairs, as a program writes them.
    ///
    /// # Errors
    /// [`StageError::Pattern`].
    pub fn new(pairs: &[(&str, Action)]) -> Result<Self, StageError> {
        let rule =
            |(pattern, action): &(&str, Action)| Ok(Rule(pattern.to_string().try_into()?, *action));
        Ok(Self(pairs.iter().map(rule).collect::<Result<_, StageError>>()?))
    }

    /// What Janus-Pro trains in stage 1, 2 or 3.
    ///
    /// Source: Janus, <https://arxiv.org/abs/2410.13848>, figure 3 and section 3.2; unchanged in
    /// Janus-Pro. That the code embeddings train with their adaptor is not written there, but the
    /// published ones differ from the codebook.
    pub fn janus_pro(stage: usize) -> Option<Self> {
        use Action::{Freeze, Train};
        let (encoder, language) = match stage {
            1 => (Freeze, Freeze),
            2 => (Freeze, Train),
            3 => (Train, Train),
            _ => return None,
        };
        let rules = [
            ("vision_model.**", encoder),
            ("aligner.**", Train),
            ("gen_vision_model.**", Freeze),
            ("gen_aligner.**", Train),
            ("gen_embed.**", Train),
            ("gen_head.**", Train),
            ("language_model.**", language),
        ];
        Self::new(&rules).ok()
    }

    /// Number of the rule that decides a parameter.
    fn deciding(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|Rule(pattern, _)| pattern.matches(name))
    }

    /// Whether a parameter trains, by its canonical name.
    pub fn trains(&self, name: &str) -> bool {
        self.deciding(name).is_some_and(|rule| self.0[rule].1 == Action::Train)
    }

    /// What the rules make of a model, part by part, in the order of the checkpoint.
    ///
    /// # Errors
    /// Everything but [`StageError::Pattern`].
    pub fn plan(&self, janus: &Janus) -> Result<Vec<Part>, StageError> {
        let (mut parts, mut uncovered) = (Vec::<Part>::new(), Vec::new());
        let mut idle: BTreeMap<usize, String> =
            self.0.iter().map(|rule| rule.0.clone().into()).enumerate().collect();
        for parameter in parameters(janus) {
            let (name, count) = (canonical_name(&parameter.path), parameter.len() as u64);
            let Some(rule) = self.deciding(&name) else {
                uncovered.push(name);
                continue;
            };
            idle.remove(&rule);
            let first = name.split('.').next().unwrap_or_default();
            if parts.last().is_none_or(|part| part.name != first) {
                parts.push(Part { name: first.to_owned(), trained: 0, frozen: 0 });
            }
            if let Some(part) = parts.last_mut() {
                match self.0[rule].1 {
                    Action::Train => part.trained += count,
                    Action::Freeze => part.frozen += count,
                }
            }
        }
        if !uncovered.is_empty() {
            return Err(StageError::Uncovered { names: uncovered });
        }
        if !idle.is_empty() {
            return Err(StageError::Idle { patterns: idle.into_values().collect() });
        }
        if parts.iter().all(|part| part.trained == 0) {
            return Err(StageError::NothingTrains);
        }
        Ok(parts)
    }

    /// Marks every parameter as trained or frozen, and says how much of each.
    ///
    /// # Errors
    /// As [`Rules::plan`].
    pub fn apply(&self, janus: Janus) -> Result<(Janus, Vec<Part>), StageError> {
        let parts = self.plan(&janus)?;
        let janus = janus.map(&mut Marker { rules: self, path: Vec::new() });
        Ok((janus, parts))
    }
}

struct Marker<'a> {
    rules: &'a Rules,
    path: Vec<String>,
}

impl ModuleMapper for Marker<'_> {
    fn enter_module(&mut self, name: &str, _kind: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _kind: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.set_require_grad(self.rules.trains(&canonical_name(&self.path.join("."))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::Device;
    use janus_model::{JanusConfig, Parts, Precision};

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.to_owned().try_into().unwrap()
    }

    /// The published shape; nothing of it is allocated.
    fn janus() -> Janus {
        JanusConfig::pro_1b().init(Parts::All, Precision::F32, &Device::flex())
    }

    #[test]
    fn patterns_match_whole_names_by_whole_elements() {
        let yes = |p: &str, name: &str| assert!(pattern(p).matches(name), "{p} {name}");
        let no = |p: &str, name: &str| assert!(!pattern(p).matches(name), "{p} {name}");
        yes("aligner.**", "aligner.layers.0.weight");
        no("aligner.**", "gen_aligner.layers.0.weight");
        no("aligner", "aligner.layers.0.weight");
        yes("**.bias", "aligner.layers.0.bias");
        yes("**", "a");
        yes("a.**", "a");
        yes("a.*.c", "a.b.c");
        no("a.*.c", "a.b.b.c");
        no("a.*", "a");
        yes("**.layers.*.mlp.**", "language_model.model.layers.7.mlp.up_proj.weight");
        no("**.layers.7.**", "language_model.model.layers.17.mlp.up_proj.weight");
    }

    #[test]
    fn patterns_that_are_no_paths_are_refused() {
        for bad in ["", "a..b", ".a", "gen_*", "layers.1*", "***"] {
            let error = Pattern::try_from(bad.to_owned()).unwrap_err();
            assert!(error.to_string().contains(&format!("`{bad}`")), "{error}");
        }
    }

    #[test]
    fn rules_read_as_pairs() {
        let text = r#"[["vision_model.**", "freeze"], ["**", "train"]]"#;
        let rules: Rules = serde_json::from_str(text).unwrap();
        let expected = [("vision_model.**", Action::Freeze), ("**", Action::Train)];
        assert_eq!(rules, Rules::new(&expected).unwrap());
        assert_eq!(serde_json::to_string(&rules).unwrap(), text.replace(", ", ","));
        let error = serde_json::from_str::<Rules>(r#"[["gen_*", "train"]]"#).unwrap_err();
        assert!(error.to_string().contains("whole elements"), "{error}");
    }

    /// Specification: stage 1 trains adaptors, code embeddings and image head; stage 2 the language
    /// model too; stage 3 all but the image tokenizer.
    #[test]
    fn every_stage_covers_every_parameter() {
        let trained = |stage| {
            let parts = Rules::janus_pro(stage).unwrap().plan(&janus()).unwrap();
            assert!(parts.iter().all(|part| part.trained == 0 || part.frozen == 0));
            let numbers: u64 = parts.iter().map(|part| part.trained + part.frozen).sum();
            assert_eq!(numbers, janus().num_params() as u64);
            let names = parts.iter().filter(|part| part.trained > 0).map(|p| p.name.clone());
            names.collect::<Vec<_>>()
        };
        let adaptors = ["aligner", "gen_aligner", "gen_head", "gen_embed"];
        assert_eq!(trained(1), adaptors);
        assert_eq!(trained(2), [&adaptors[..], &["language_model"]].concat());
        assert_eq!(
            trained(3),
            [&["vision_model"][..], &adaptors[..], &["language_model"]].concat()
        );
        assert!(Rules::janus_pro(0).is_none() && Rules::janus_pro(4).is_none());
    }

    #[test]
    fn the_first_rule_decides() {
        let rules = [
            ("language_model.model.layers.*.mlp.**", Action::Train),
            ("language_model.**", Action::Freeze),
            ("gen_aligner.**", Action::Train),
            ("**", Action::Freeze),
        ];
        let parts = Rules::new(&rules).unwrap().plan(&janus()).unwrap();
        let of = |name| parts.iter().find(|part| part.name == name).unwrap();
        assert_eq!(of("language_model").trained, 24 * 3 * 2048 * 5632);
        assert!(of("language_model").frozen > 0);
        assert_eq!(of("aligner").trained, 0);
        assert_eq!(of("gen_aligner").frozen, 0);
    }

    #[test]
    fn gaps_and_idle_rules_are_named() {
        let plan = |rules: &[(&str, Action)]| Rules::new(rules).unwrap().plan(&janus());
        let error = plan(&[("aligner.**", Action::Train)]).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StageError::Uncovered { .. }) && text.contains("more"), "{text}");
        let hidden = plan(&[("**", Action::Train), ("vision_model.**", Action::Freeze)]);
        assert_eq!(hidden, Err(StageError::Idle { patterns: vec!["vision_model.**".into()] }));
        let typo = plan(&[("visoin_model.**", Action::Freeze), ("**", Action::Train)]);
        assert_eq!(typo, Err(StageError::Idle { patterns: vec!["visoin_model.**".into()] }));
        assert_eq!(plan(&[("**", Action::Freeze)]), Err(StageError::NothingTrains));
    }
}
