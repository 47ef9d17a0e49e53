//! What is particular to `[route.NAME.aggregate]`: the names that templates can use, the graph of its sources, its
//! checks and its explanation. Its keys are in [`super::elements::aggregate`].

pub mod check;
pub mod explain;
pub mod fit;
pub mod graph;
pub mod memory;
pub mod names;
