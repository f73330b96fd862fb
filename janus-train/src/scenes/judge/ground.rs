//! What lies behind the objects: a tint that may change evenly across the picture.

use image::RgbImage;

/// A pixel this far from the ground, in RGB, is not part of it.
pub(super) const FAR: f32 = 34.0;
/// Fits of the ground, each without what the one before found to lie on it.
const ROUNDS: usize = 5;

/// How far pixels are from the ground.
pub(super) struct Differences {
    pub width: usize,
    pub height: usize,
    /// Row by row.
    pub values: Vec<f32>,
}

/// Fits the ground of a picture, and measures its pixels by it.
pub(super) fn differences(picture: &RgbImage) -> Differences {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let pixels: Vec<[f32; 3]> = picture.pixels().map(|pixel| pixel.0.map(f32::from)).collect();
    let place = |at: usize| {
        [1.0, (at % width) as f32 / width as f32 - 0.5, (at / width) as f32 / height as f32 - 0.5]
    };
    // The ground is more than half of a picture.
    let middle = |channel: usize| median(pixels.iter().map(|pixel| pixel[channel]).collect());
    let mut planes: [[f32; 3]; 3] = std::array::from_fn(|channel| [middle(channel), 0.0, 0.0]);
    let measure = |planes: &[[f32; 3]; 3]| -> Vec<f32> {
        let distance = |(at, pixel): (usize, &[f32; 3])| {
            let place = place(at);
            let error = |channel: usize| pixel[channel] - dot(&planes[channel], &place);
            (0..3).map(|channel| error(channel) * error(channel)).sum::<f32>().sqrt()
        };
        pixels.iter().enumerate().map(distance).collect()
    };
    let mut values = measure(&planes);
    for _ in 0..ROUNDS {
        let ground: Vec<usize> = (0..pixels.len()).filter(|at| values[*at] < FAR).collect();
        for (channel, plane) in planes.iter_mut().enumerate() {
            let points = ground.iter().map(|at| (place(*at), pixels[*at][channel]));
            *plane = fit(points).unwrap_or(*plane);
        }
        values = measure(&planes);
    }
    Differences { width, height, values }
}

fn dot(a: &[f32; 3], b: &[f32; 3]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn median(mut values: Vec<f32>) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// Least squares: the plane nearest to the points; `None` where they do not determine one.
fn fit(points: impl Iterator<Item = ([f32; 3], f32)>) -> Option<[f32; 3]> {
    let (mut a, mut b) = ([[0.0f64; 3]; 3], [0.0f64; 3]);
    for (place, value) in points {
        for i in 0..3 {
            for j in 0..3 {
                a[i][j] += f64::from(place[i] * place[j]);
            }
            b[i] += f64::from(place[i] * value);
        }
    }
    let determinant = |m: &[[f64; 3]; 3]| {
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
            - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    };
    let whole = determinant(&a);
    if whole.abs() < 1e-3 {
        return None;
    }
    Some(std::array::from_fn(|column| {
        let mut replaced = a;
        (0..3).for_each(|row| replaced[row][column] = b[row]);
        (determinant(&replaced) / whole) as f32
    }))
}
