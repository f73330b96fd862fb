use std::collections::BTreeMap;
use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};

use super::super::draw::{Outline, covered};
use super::super::look::Tint;
use super::super::split::Split;
use super::*;

/// Prompts of each category, of the test split.
const PROMPTS: u64 = 400;

fn prompts() -> impl Iterator<Item = Prompt> {
    let themes = Theme::ALL.into_iter().filter(|theme| *theme != Theme::Mixed);
    themes.flat_map(|theme| {
        (0..PROMPTS).map(move |index| {
            let scene = Scene::with_theme(77, Split::Test, index, theme);
            Prompt::new(scene, &mut Chance::of(&[index]))
        })
    })
}

/// How many of each category hold, of how many.
fn shares(judged: impl Iterator<Item = (Theme, bool)>) -> BTreeMap<Theme, (u32, u32)> {
    let mut shares: BTreeMap<Theme, (u32, u32)> = BTreeMap::new();
    for (theme, holds) in judged {
        let share = shares.entry(theme).or_default();
        *share = (share.0 + u32::from(holds), share.1 + 1);
    }
    shares
}

fn at_least(least: f64, shares: &BTreeMap<Theme, (u32, u32)>) {
    assert_eq!(shares.len(), 6);
    for (theme, (holds, of)) in shares {
        assert!(*of >= 200 && f64::from(*holds) >= least * f64::from(*of), "{theme:?}: {shares:?}");
    }
}

/// As a picture comes out of a lossy file, or of a small image tokenizer.
fn disturbed(picture: &RgbImage) -> RgbImage {
    let soft = image::imageops::blur(picture, 0.8);
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 60).encode_image(&soft).unwrap();
    image::ImageReader::with_format(Cursor::new(bytes), image::ImageFormat::Jpeg)
        .decode()
        .unwrap()
        .to_rgb8()
}

#[test]
fn true_pictures_hold() {
    let judged = prompts().map(|prompt| {
        let found = find(&prompt.scene.draw(64));
        (prompt.scene.theme, prompt.holds_exactly(&found))
    });
    at_least(0.99, &shares(judged));
}

#[test]
fn disturbed_pictures_hold() {
    let judged = prompts().step_by(2).map(|prompt| {
        let found = find(&disturbed(&prompt.scene.draw(64)));
        (prompt.scene.theme, prompt.holds_exactly(&found))
    });
    at_least(0.97, &shares(judged));
}

/// Softer, paler, of other colours, and each patch with an error of its own.
fn rough(picture: &RgbImage, number: u64) -> RgbImage {
    let drift: [f32; 3] = {
        let mut chance = Chance::of(&[number]);
        std::array::from_fn(|_| chance.between(-14.0, 14.0))
    };
    let mut picture = image::imageops::blur(picture, 1.0);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let mut chance = Chance::of(&[number, u64::from(x / 8), u64::from(y / 8)]);
        for (value, drift) in pixel.0.iter_mut().zip(drift) {
            let paler = 128.0 + 0.88 * (f32::from(*value) - 128.0);
            *value = (paler + drift + chance.between(-8.0, 8.0)).clamp(0.0, 255.0) as u8;
        }
    }
    picture
}

#[test]
fn rough_pictures_hold() {
    let judged = prompts().step_by(2).zip(0..).map(|(prompt, number)| {
        let found = find(&rough(&prompt.scene.draw(64), number));
        (prompt.scene.theme, prompt.holds(&found))
    });
    at_least(0.97, &shares(judged));
}

/// Pictures of any size, as long as their shapes can be seen.
#[test]
fn large_pictures_hold() {
    let some = prompts().step_by(8);
    let judged = some.map(|prompt| prompt.holds_exactly(&find(&prompt.scene.draw(384))));
    let held: Vec<bool> = judged.collect();
    let share = held.iter().filter(|held| **held).count();
    assert!(share * 100 >= 99 * held.len(), "{share} of {}", held.len());
}

/// The same scene with one thing wrong, in each way that its category can be.
fn wrong(prompt: &Prompt, chance: &mut Chance) -> Vec<(&'static str, Scene)> {
    let theme = prompt.scene.theme;
    let (draw, colours) = (chance.below(60), Colour::ALL);
    let changed = |change: &dyn Fn(&mut Scene)| {
        let mut scene = prompt.scene.clone();
        change(&mut scene);
        scene
    };
    let shape = changed(&|scene| {
        let taken = |shape: &Shape| scene.objects.iter().any(|object| object.look.shape == *shape);
        let free: Vec<Shape> = Shape::ALL.into_iter().filter(|shape| !taken(shape)).collect();
        scene.objects[0].look.shape = free[draw % free.len()];
    });
    let mut all = vec![("shape", shape)];
    if !matches!(theme, Theme::SingleObject | Theme::TwoObjects) {
        let paint = |scene: &mut Scene| {
            let object = &mut scene.objects[0];
            let other = object.look.colour as usize + 1 + draw % 7;
            object.look.colour = colours[other % 8];
            object.outlined &= !matches!(object.look.colour, Colour::Black | Colour::White);
        };
        all.push(("colour", changed(&paint)));
    }
    match theme {
        Theme::Counting => {
            all.push(("count", changed(&|scene| scene.objects.truncate(scene.objects.len() - 1))));
            all.push((
                "count",
                changed(&|scene| {
                    let mut more = scene.objects[0].clone();
                    // Into the emptiest corner; small enough not to touch what is there.
                    let corners =
                        [[9.0, 9.0], [55.0, 9.0], [9.0, 55.0], [55.0, 55.0], [32.0, 32.0]];
                    let room = |corner: &[f32; 2]| {
                        let far = scene.objects.iter().map(|object| {
                            let [x, y] = [0, 1].map(|i| object.centre[i] - corner[i]);
                            x.hypot(y) - object.radius
                        });
                        far.fold(f32::INFINITY, f32::min)
                    };
                    let best = corners.into_iter().max_by(|a, b| room(a).total_cmp(&room(b)));
                    more.centre = best.unwrap();
                    more.radius = (room(&more.centre) - 1.5).clamp(6.0, 7.5);
                    scene.objects.push(more);
                }),
            ));
        }
        Theme::Position => all.push((
            "relation",
            changed(&|scene| {
                let [a, b] = &mut scene.objects[..] else { panic!("two") };
                std::mem::swap(&mut a.look, &mut b.look);
            }),
        )),
        Theme::Binding => all.push((
            "attributes",
            changed(&|scene| {
                let [a, b] = &mut scene.objects[..] else { panic!("two") };
                std::mem::swap(&mut a.look.colour, &mut b.look.colour);
            }),
        )),
        _ => {}
    }
    all
}

#[test]
fn wrong_pictures_do_not_hold() {
    let mut rejected: BTreeMap<(Theme, &str), (u32, u32)> = BTreeMap::new();
    for (number, prompt) in prompts().step_by(3).enumerate() {
        for (what, scene) in wrong(&prompt, &mut Chance::of(&[number as u64])) {
            for picture in [scene.draw(64), disturbed(&scene.draw(64))] {
                let share = rejected.entry((prompt.scene.theme, what)).or_default();
                share.0 += u32::from(!prompt.holds(&find(&picture)));
                share.1 += 1;
            }
        }
    }
    assert_eq!(rejected.len(), 6 + 4 + 3);
    for (what, (rejected, of)) in &rejected {
        assert!(f64::from(*rejected) >= 0.99 * f64::from(*of), "{what:?}: {rejected} of {of}");
    }
}

/// A picture on a grey ground in which a pixel is as white as this says.
fn blob(inside: impl Fn(f32, f32) -> f32) -> RgbImage {
    let ground = Tint::Dark.rgb();
    RgbImage::from_fn(64, 64, |x, y| {
        let share = inside(x as f32 + 0.5, y as f32 + 0.5);
        Rgb(ground.map(|value| (value + (250.0 - value) * share).round() as u8))
    })
}

#[test]
fn a_blob_is_no_shape() {
    let circle = |x: f32, y: f32, radius: f32| {
        move |at: [f32; 2]| covered((at[0] - x).hypot(at[1] - y) - radius)
    };
    let bar = |half: [f32; 2]| {
        move |x: f32, y: f32| covered(((x - 32.0).abs() - half[0]).max((y - 32.0).abs() - half[1]))
    };
    let (a, b, hole) = (circle(27.0, 30.0, 6.0), circle(38.0, 33.0, 6.0), circle(36.0, 30.0, 8.0));
    let (whole, inner) = (circle(32.0, 32.0, 12.0), circle(32.0, 32.0, 7.0));
    let star = Outline::of(Shape::Star, [32.0, 32.0], 13.0, 0.325);
    let pictures = [
        ("a bar", blob(bar([12.0, 5.0]))),
        ("a tall bar", blob(bar([4.0, 13.0]))),
        ("two circles joined", blob(|x, y| a([x, y]).max(b([x, y])))),
        ("a moon", blob(|x, y| (whole([x, y]) - hole([x, y])).max(0.0))),
        ("a ring", blob(|x, y| (whole([x, y]) - inner([x, y])).max(0.0))),
        (
            "a corner",
            blob(|x, y| (bar([10.0, 10.0])(x, y) - bar([10.0, 10.0])(x - 7.0, y - 7.0)).max(0.0)),
        ),
        ("a star that is turned too far", blob(|x, y| covered(star.distance([x, y])))),
    ];
    for (what, picture) in pictures {
        let found = find(&picture);
        let [one] = &found[..] else { panic!("{what}: {found:?}") };
        assert_eq!((one.shape, one.colour), (None, Some(Colour::White)), "{what}");
    }
}

#[test]
fn nothing_and_specks_are_no_objects() {
    assert_eq!(find(&RgbImage::new(0, 0)), []);
    assert_eq!(find(&blob(|_, _| 0.0)), []);
    assert_eq!(
        find(&blob(|x, y| f32::from(u8::from((x as i32 % 16, y as i32 % 16) == (3, 3))))),
        []
    );
    let noise = |x: f32, y: f32| 0.12 * ((x * 12.9 + y * 78.2).sin() * 43_758.5).fract().abs();
    assert_eq!(find(&blob(noise)), []);
    // Far from every colour of the palette.
    let mut odd = blob(|x, y| covered((x - 32.0).hypot(y - 32.0) - 10.0));
    odd.pixels_mut().filter(|pixel| pixel[0] > 150).for_each(|pixel| *pixel = Rgb([0, 255, 255]));
    let found = find(&odd);
    assert_eq!((found[0].shape, found[0].colour), (Some(Shape::Circle), None));
}

#[test]
fn more_is_allowed_except_where_things_are_counted() {
    for theme in [Theme::Binding, Theme::Counting] {
        let scene = Scene::with_theme(1, Split::Test, 2, theme);
        let prompt = Prompt::new(scene, &mut Chance::of(&[0]));
        let mut found = find(&prompt.scene.draw(64));
        assert!(prompt.holds(&found) && prompt.holds_exactly(&found));
        found.push(Found { shape: None, colour: None, centre: [5.0, 5.0], radius: 4.0 });
        assert_eq!(prompt.holds(&found), theme == Theme::Binding);
        assert!(!prompt.holds_exactly(&found) && !prompt.holds(&[]));
    }
}
