//! What things look like: shapes, colours, sizes, and the tints they lie on.

use std::fmt;

/// A shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Shape {
    Circle,
    Square,
    Triangle,
    Star,
    Cross,
    Heart,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Circle, Self::Square, Self::Triangle, Self::Star, Self::Cross, Self::Heart];

    /// One of them in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Circle => "circle",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Star => "star",
            Self::Cross => "cross",
            Self::Heart => "heart",
        }
    }

    /// Several of them in words.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Circle => "circles",
            Self::Square => "squares",
            Self::Triangle => "triangles",
            Self::Star => "stars",
            Self::Cross => "crosses",
            Self::Heart => "hearts",
        }
    }

    /// The right form for so many.
    pub fn named(self, count: usize) -> &'static str {
        if count == 1 { self.name() } else { self.plural() }
    }
}

/// A colour of the palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Colour {
    Red,
    Orange,
    Yellow,
    Green,
    Blue,
    Purple,
    Black,
    White,
}

impl Colour {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Red,
        Self::Orange,
        Self::Yellow,
        Self::Green,
        Self::Blue,
        Self::Purple,
        Self::Black,
        Self::White,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Orange => "orange",
            Self::Yellow => "yellow",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Purple => "purple",
            Self::Black => "black",
            Self::White => "white",
        }
    }

    /// Red, green and blue, from 0 to 255.
    pub fn rgb(self) -> [f32; 3] {
        match self {
            Self::Red => [216.0, 36.0, 40.0],
            Self::Orange => [244.0, 134.0, 24.0],
            Self::Yellow => [250.0, 222.0, 48.0],
            Self::Green => [48.0, 172.0, 72.0],
            Self::Blue => [36.0, 84.0, 216.0],
            Self::Purple => [142.0, 52.0, 178.0],
            Self::Black => [16.0, 16.0, 18.0],
            Self::White => [250.0, 250.0, 250.0],
        }
    }
}

/// A colour of backgrounds: muted, and far from the palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Tint {
    Dark,
    Grey,
    Mint,
    Rosy,
}

impl Tint {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Dark, Self::Grey, Self::Mint, Self::Rosy];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dark => "dark",
            Self::Grey => "grey",
            Self::Mint => "mint",
            Self::Rosy => "rosy",
        }
    }

    /// Red, green and blue, from 0 to 255.
    pub fn rgb(self) -> [f32; 3] {
        match self {
            Self::Dark => [70.0, 76.0, 86.0],
            Self::Grey => [132.0, 134.0, 138.0],
            Self::Mint => [152.0, 188.0, 170.0],
            Self::Rosy => [198.0, 164.0, 164.0],
        }
    }
}

/// The third of a picture, down and across, that the middle of an object is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Place {
    TopLeft,
    Top,
    TopRight,
    Left,
    Centre,
    Right,
    BottomLeft,
    Bottom,
    BottomRight,
}

impl Place {
    /// All of them, row by row.
    pub const ALL: [Self; 9] = [
        Self::TopLeft,
        Self::Top,
        Self::TopRight,
        Self::Left,
        Self::Centre,
        Self::Right,
        Self::BottomLeft,
        Self::Bottom,
        Self::BottomRight,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::TopLeft => "top left",
            Self::Top => "top",
            Self::TopRight => "top right",
            Self::Left => "left",
            Self::Centre => "centre",
            Self::Right => "right",
            Self::BottomLeft => "bottom left",
            Self::Bottom => "bottom",
            Self::BottomRight => "bottom right",
        }
    }
}

/// Colour and shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Look {
    /// Its shape, which sorts first.
    pub shape: Shape,
    /// Its colour.
    pub colour: Colour,
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.colour.name(), self.shape.name())
    }
}

/// How large something is, where that is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // the names say it
pub enum Size {
    Small,
    Large,
}

impl Size {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(a: [f32; 3], b: [f32; 3]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
    }

    #[test]
    fn colours_and_tints_are_far_apart() {
        for (number, colour) in Colour::ALL.into_iter().enumerate() {
            for other in &Colour::ALL[..number] {
                let far = distance(colour.rgb(), other.rgb());
                assert!(far > 85.0, "{colour:?} {other:?}: {far}");
            }
            for tint in Tint::ALL {
                let far = distance(colour.rgb(), tint.rgb());
                assert!(far > 90.0, "{colour:?} {tint:?}: {far}");
            }
        }
        for (number, tint) in Tint::ALL.into_iter().enumerate() {
            for other in &Tint::ALL[..number] {
                let far = distance(tint.rgb(), other.rgb());
                assert!(far > 50.0, "{tint:?} {other:?}: {far}");
            }
        }
    }
}
