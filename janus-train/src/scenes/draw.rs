//! From a scene to pixels.
//!
//! Shapes are signed distances, in pixels: how much of a pixel one covers follows from how far its
//! middle is from the edge. Nothing but exactly rounded arithmetic is used, so the same scene has
//! the same bytes everywhere.

use std::sync::LazyLock;

use image::{Rgb, RgbImage};

use super::look::Shape;
use super::scene::{Object, SIDE, Scene};
use crate::data::random::hash;

/// Width of the line along an edge.
const LINE: f32 = 1.0;
/// What is left of a colour in such a line.
const LINE_SHADE: f32 = 0.62;

impl Scene {
    /// Its picture, `size` pixels wide and high.
    pub fn draw(&self, size: u32) -> RgbImage {
        let scale = size as f32 / SIDE;
        let mut picture = Canvas::new(self, size);
        for object in &self.objects {
            picture.put(object, scale);
        }
        picture.finish(self)
    }
}

/// A picture in numbers without bounds.
struct Canvas {
    size: u32,
    pixels: Vec<[f32; 3]>,
}

impl Canvas {
    fn new(scene: &Scene, size: u32) -> Self {
        let back = &scene.background;
        let tint = back.tint.rgb();
        let pixel = |at: u32| {
            let share = |at: u32| (at as f32 + 0.5) / size as f32 - 0.5;
            let brighter = back.slope[0] * share(at % size) + back.slope[1] * share(at / size);
            std::array::from_fn(|i| tint[i] + back.shift[i] + brighter)
        };
        Self { size, pixels: (0..size * size).map(pixel).collect() }
    }

    fn put(&mut self, object: &Object, scale: f32) {
        let outline = Outline::of(object.look.shape, object.centre, object.radius, object.turn);
        let colour: [f32; 3] =
            std::array::from_fn(|i| object.look.colour.rgb()[i] + object.shift[i]);
        let bound = |x: f32| (x * scale).clamp(0.0, self.size as f32) as u32;
        let range = |axis: usize| {
            let (middle, reach) = (object.centre[axis], object.radius + 2.0 + 1.0 / scale);
            bound(middle - reach)..bound(middle + reach)
        };
        for y in range(1) {
            for x in range(0) {
                let at = [x, y].map(|x| (x as f32 + 0.5) / scale);
                let distance = outline.distance(at) * scale;
                let share = covered(distance);
                if share == 0.0 {
                    continue;
                }
                let shade = match object.outlined {
                    true => mix(LINE_SHADE, 1.0, covered(distance + LINE * scale)),
                    false => 1.0,
                };
                let pixel = &mut self.pixels[(y * self.size + x) as usize];
                *pixel = std::array::from_fn(|i| mix(pixel[i], colour[i] * shade, share));
            }
        }
    }

    fn finish(self, scene: &Scene) -> RgbImage {
        let (noise, grain) = (scene.background.noise, scene.background.grain);
        RgbImage::from_fn(self.size, self.size, |x, y| {
            let at = y * self.size + x;
            let error = match noise > 0.0 {
                true => {
                    noise * (2.0 * (hash(&[grain, at.into()]) >> 40) as f32 / 16_777_216.0 - 1.0)
                }
                false => 0.0,
            };
            Rgb(self.pixels[at as usize]
                .map(|value| (value + error).round().clamp(0.0, 255.0) as u8))
        })
    }
}

fn mix(a: f32, b: f32, share: f32) -> f32 {
    a + (b - a) * share
}

/// How much of a pixel is inside, by how far its middle is from the edge.
pub(super) fn covered(distance: f32) -> f32 {
    (0.5 - distance).clamp(0.0, 1.0)
}

/// The edge of an object.
pub(super) enum Outline {
    Circle { centre: [f32; 2], radius: f32 },
    Polygon(Vec<[f32; 2]>),
}

impl Outline {
    /// Of a shape in the circle of this centre and radius; `turn` is the tangent of half the angle.
    pub(super) fn of(shape: Shape, centre: [f32; 2], radius: f32, turn: f32) -> Self {
        let Some(corners) = corners(shape) else {
            return Self::Circle { centre, radius: CIRCLE * radius };
        };
        let t = turn;
        let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
        let place = |[x, y]: &[f32; 2]| {
            let turned = [x * cos - y * sin, x * sin + y * cos];
            [0, 1].map(|axis| centre[axis] + radius * turned[axis])
        };
        Self::Polygon(corners.iter().map(place).collect())
    }

    /// From the edge, negative inside.
    pub(super) fn distance(&self, at: [f32; 2]) -> f32 {
        match self {
            Self::Circle { centre, radius } => {
                let [x, y] = [at[0] - centre[0], at[1] - centre[1]];
                (x * x + y * y).sqrt() - radius
            }
            Self::Polygon(corners) => polygon(corners, at),
        }
    }
}

/// The signed distance from a polygon: that from its nearest side; inside where a ray to the right
/// crosses an odd number of sides.
fn polygon(corners: &[[f32; 2]], at: [f32; 2]) -> f32 {
    let (mut nearest, mut inside) = (f32::INFINITY, false);
    let mut from = corners.last();
    for to in corners {
        let (Some([x0, y0]), [x1, y1]) = (from.replace(to), to) else { continue };
        let ([dx, dy], [px, py]) = ([x1 - x0, y1 - y0], [at[0] - x0, at[1] - y0]);
        let along = ((px * dx + py * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
        let [ex, ey] = [px - along * dx, py - along * dy];
        nearest = nearest.min(ex * ex + ey * ey);
        if (*y0 > at[1]) != (*y1 > at[1]) && px < dx * py / dy {
            inside = !inside;
        }
    }
    if inside { -nearest.sqrt() } else { nearest.sqrt() }
}

impl Shape {
    /// Its area in a circle of radius 1, and how far its centre of mass lies below the middle.
    pub(super) fn moments(self) -> (f32, f32) {
        let Some(corners) = corners(self) else {
            return (std::f32::consts::PI * CIRCLE * CIRCLE, 0.0);
        };
        let (mut area, mut moment) = (0.0, 0.0);
        for ([x0, y0], [x1, y1]) in corners.iter().zip(corners.iter().cycle().skip(1)) {
            let cross = x0 * y1 - x1 * y0;
            area += cross / 2.0;
            moment += cross * (y0 + y1) / 6.0;
        }
        (area.abs(), moment / area)
    }
}

/// Radius of the circle, which would look larger than the others otherwise.
const CIRCLE: f32 = 0.92;

/// The corners of a shape in a circle of radius 1; `None` for one without corners.
fn corners(shape: Shape) -> Option<&'static [[f32; 2]]> {
    static STAR: LazyLock<Vec<[f32; 2]>> = LazyLock::new(star);
    static HEART: LazyLock<Vec<[f32; 2]>> = LazyLock::new(heart);
    const SQUARE: [[f32; 2]; 4] = [[-0.7, -0.7], [0.7, -0.7], [0.7, 0.7], [-0.7, 0.7]];
    const TRIANGLE: [[f32; 2]; 3] = [[0.0, -1.0], [0.866, 0.5], [-0.866, 0.5]];
    /// Half the length of an arm, and half its width.
    const L: f32 = 0.95;
    const W: f32 = 0.3;
    const CROSS: [[f32; 2]; 12] = [
        [-W, -L],
        [W, -L],
        [W, -W],
        [L, -W],
        [L, W],
        [W, W],
        [W, L],
        [-W, L],
        [-W, W],
        [-L, W],
        [-L, -W],
        [-W, -W],
    ];
    match shape {
        Shape::Circle => None,
        Shape::Square => Some(&SQUARE),
        Shape::Triangle => Some(&TRIANGLE),
        Shape::Star => Some(&STAR),
        Shape::Cross => Some(&CROSS),
        Shape::Heart => Some(&HEART),
    }
}

/// Points around the unit circle from the top, each a step of this cosine and sine further.
fn around(count: usize, cos: f32, sin: f32) -> impl Iterator<Item = [f32; 2]> {
    let step = move |[x, y]: &[f32; 2]| Some([x * cos - y * sin, x * sin + y * cos]);
    std::iter::successors(Some([0.0, -1.0]), step).take(count)
}

/// Five points, and five corners between them.
fn star() -> Vec<[f32; 2]> {
    let points = around(10, 0.809_017, 0.587_785_24).enumerate();
    let reach = |number: usize| if number.is_multiple_of(2) { 1.0 } else { 0.45 };
    points.map(|(number, point)| point.map(|x| x * reach(number))).collect()
}

/// x = 16 sin³, y = 13 cos − 5 cos 2 − 2 cos 3 − cos 4, over the angles of a circle.
fn heart() -> Vec<[f32; 2]> {
    let points = around(36, 0.984_807_7, 0.173_648_18);
    let place = |[sin, up]: [f32; 2]| {
        let c = -up;
        let (c2, c3) = (c * c, c * c * c);
        let y = 13.0 * c - 5.0 * (2.0 * c2 - 1.0) - 2.0 * (4.0 * c3 - 3.0 * c);
        let y = y - (8.0 * c2 * c2 - 8.0 * c2 + 1.0);
        [16.0 * sin * sin * sin / 17.0, -y / 17.0]
    };
    points.map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::super::look::{Colour, Look, Tint};
    use super::super::scene::{Background, Theme};
    use super::super::split::Split;
    use super::*;

    fn alone(shape: Shape, turn: f32) -> Scene {
        let look = Look { shape, colour: Colour::White };
        let centre = [30.3, 33.9];
        let object = Object {
            look,
            centre,
            radius: 12.0,
            size: None,
            turn,
            shift: [0.0; 3],
            outlined: false,
        };
        let background =
            Background { tint: Tint::Dark, shift: [0.0; 3], slope: [0.0; 2], noise: 0.0, grain: 0 };
        Scene { theme: Theme::SingleObject, objects: vec![object], background }
    }

    #[test]
    fn shapes_cover_as_much_as_they_should() {
        for (shape, size) in Shape::ALL.into_iter().flat_map(|s| [64, 192].map(|size| (s, size))) {
            // By its corners, which know nothing of distances.
            let expected = shape.moments().0 * 144.0 * (size as f32 / 64.0) * (size as f32 / 64.0);
            let [low, high] = [Tint::Dark.rgb()[1], Colour::White.rgb()[1]];
            for turn in [0.0, 0.06] {
                let picture = alone(shape, turn).draw(size);
                let share = |pixel: &Rgb<u8>| (f32::from(pixel[1]) - low) / (high - low);
                let found: f32 = picture.pixels().map(share).sum();
                assert!((found / expected - 1.0).abs() < 0.02, "{shape:?}: {found}, {expected}");
                let soft = picture.pixels().filter(|p| (0.05..0.95).contains(&share(p))).count();
                assert!(soft as f32 > 0.15 * size as f32, "{shape:?}: {soft} soft pixels");
            }
        }
    }

    #[test]
    fn shapes_stay_in_their_circle() {
        for shape in Shape::ALL {
            let far = corners(shape).unwrap_or_default().iter().map(|[x, y]| x.hypot(*y));
            let far = far.fold(CIRCLE, f32::max);
            assert!((0.9..1.01).contains(&far), "{shape:?}: {far}");
        }
    }

    #[test]
    fn colours_are_those_of_the_scene() {
        for index in 0..200 {
            let scene = Scene::new(9, Split::Train, index);
            let picture = scene.draw(64);
            for object in &scene.objects {
                // A little below the middle is inside of every shape.
                let [x, y] = [object.centre[0] as u32, (object.centre[1] + 0.1) as u32];
                let expected = object.look.colour.rgb();
                for (found, expected) in picture.get_pixel(x, y).0.iter().zip(expected) {
                    assert!((f32::from(*found) - expected).abs() < 14.0, "{scene:?}");
                }
            }
            let corner = picture.get_pixel(0, 63).0;
            for (found, expected) in corner.iter().zip(scene.background.tint.rgb()) {
                assert!((f32::from(*found) - expected).abs() < 26.0, "{scene:?}");
            }
        }
    }

    #[test]
    fn any_size_shows_the_same() {
        let scene = Scene::new(1, Split::Train, 7);
        for size in [16, 63, 384] {
            let picture = scene.draw(size);
            assert_eq!((picture.width(), picture.height()), (size, size));
        }
        // Twice as large, averaged, is nearly as large.
        let scene = alone(Shape::Star, 0.03);
        let (small, large) = (scene.draw(64), scene.draw(128));
        for (x, y, pixel) in small.enumerate_pixels() {
            let four = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(i, j)| (2 * x + i, 2 * y + j));
            let mean =
                four.iter().map(|(x, y)| u32::from(large.get_pixel(*x, *y)[0])).sum::<u32>() / 4;
            assert!(u32::from(pixel[0]).abs_diff(mean) < 40, "{x} {y}: {} {mean}", pixel[0]);
        }
    }
}
