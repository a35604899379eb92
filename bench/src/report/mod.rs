//! Shows what was measured.

mod figure;
mod plot;

pub(crate) use self::{
    figure::Figure,
    plot::{Axis, Line, Plot},
};
