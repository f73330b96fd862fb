//! What a module is made of: every parameter by its path.
//!
//! Burn gives a parameter of a fresh module its values when it is first looked at; of 7 billion
//! numbers nobody wants that by accident. [`parameters`] looks at none, [`computed`] at all.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor};

/// A parameter of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Where it stands in the module, elements joined by dots. For the name that it has in a
    /// checkpoint see [`crate::load::canonical_name`].
    pub path: String,
    /// Its number in this process.
    pub id: u64,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its format; none before it has values.
    pub dtype: Option<DType>,
    /// Whether it gets gradients; not known before it has values.
    pub requires_grad: Option<bool>,
}

impl Parameter {
    /// Whether it is known to get gradients.
    pub fn learns(&self) -> bool {
        self.requires_grad == Some(true)
    }

    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Every parameter, in the order of the module. One that has no values yet is not given any.
pub fn parameters<M: Module>(module: &M) -> Vec<Parameter> {
    visit(module, false)
}

/// As [`parameters`], of a module that is in use: all of them have values then.
pub fn computed<M: Module>(module: &M) -> Vec<Parameter> {
    visit(module, true)
}

fn visit<M: Module>(module: &M, compute: bool) -> Vec<Parameter> {
    let mut visitor = Visitor { compute, path: Vec::new(), found: Vec::new() };
    module.visit(&mut visitor);
    visitor.found
}

struct Visitor {
    compute: bool,
    path: Vec<String>,
    found: Vec<Parameter>,
}

impl ModuleVisitor for Visitor {
    fn enter_module(&mut self, name: &str, _kind: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _kind: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = (self.compute || param.is_initialized()).then(|| param.val());
        self.found.push(Parameter {
            path: self.path.join("."),
            id: param.id.val(),
            shape: param.lazy_shape().to_vec(),
            dtype: value.as_ref().map(Tensor::dtype),
            requires_grad: value.as_ref().map(Tensor::is_require_grad),
        });
    }
}

#[cfg(all(test, feature = "cpu"))]
mod tests {
    use burn::module::Module;
    use burn::tensor::Device;

    use super::*;
    use crate::linear::LinearConfig;

    #[test]
    fn everything_is_said_and_nothing_computed() {
        let layer = LinearConfig::new(3, 2).init(&Device::flex());
        let found = parameters(&layer);
        let said = |p: &Parameter| (p.path.clone(), p.shape.clone(), p.len(), p.dtype);
        let expected =
            [("weight".to_owned(), vec![2, 3], 6, None), ("bias".to_owned(), vec![2], 2, None)];
        assert_eq!(found.iter().map(said).collect::<Vec<_>>(), expected);
        assert!(!layer.weight.is_initialized(), "asking must not compute");

        let ids = [layer.weight.id.val(), layer.bias.as_ref().map_or(0, |bias| bias.id.val())];
        assert_eq!(found.iter().map(|p| p.id).collect::<Vec<_>>(), ids);
        let found = computed(&layer);
        assert!(layer.weight.is_initialized());
        assert!(found.iter().all(|p| p.dtype == Some(DType::F32) && !p.learns()));
        assert_eq!(parameters(&layer), found);
        let learning = layer.train();
        assert!(computed(&learning).iter().all(Parameter::learns));
        assert!(computed(&learning.no_grad()).iter().all(|p| p.requires_grad == Some(false)));
    }
}
