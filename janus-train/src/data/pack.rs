//! Which documents share a row.

use serde::{Deserialize, Serialize};

/// How documents are laid into rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// One document per row, padding at its right.
    Off,
    /// As many as fit; each sees itself only, and its positions begin at 0.
    #[default]
    Isolated,
    /// As many as fit; a row is read as if it were one document. The paper speaks of no special
    /// attention mask, so this may be what it did.
    Joined,
}

/// Rows of at most `limit` tokens, as indices of documents.
///
/// First-fit, longest first; of equal lengths the earlier. It depends on the lengths alone, and
/// wastes little: never more than 11/9 of the best number of rows and one more.
pub fn pack(lengths: &[usize], limit: usize, packing: Packing) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(lengths[*index]));
    if packing == Packing::Off {
        return order.into_iter().map(|index| vec![index]).collect();
    }
    let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
    for index in order {
        let length = lengths[index];
        match rows.iter_mut().find(|(used, _)| used + length <= limit) {
            Some((used, row)) => {
                *used += length;
                row.push(index);
            }
            None => rows.push((length, vec![index])),
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn longest_first_then_what_fits() {
        assert_eq!(pack(&[3, 7, 4, 6], 10, Packing::Isolated), [vec![1, 0], vec![3, 2]]);
        assert_eq!(pack(&[3, 7, 3], 10, Packing::Off), [vec![1], vec![0], vec![2]]);
    }

    proptest! {
        #[test]
        fn every_document_has_one_row_that_holds_it(
            lengths in prop::collection::vec(1usize..100, 0..60),
        ) {
            let rows = pack(&lengths, 100, Packing::Joined);
            let mut all: Vec<usize> = rows.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for row in &rows {
                prop_assert!(row.iter().map(|i| lengths[*i]).sum::<usize>() <= 100);
            }
            // Two rows at most half full would have been one.
            let half = rows.iter().filter(|row| row.iter().map(|i| lengths[*i]).sum::<usize>() <= 50);
            prop_assert!(half.count() <= 1);
        }
    }
}
