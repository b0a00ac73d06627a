//! A list indexed by its own index type (`ids`), so that an app's index cannot be used for a listener.
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Index, IndexMut};

/// A list with indices of type `I`.
#[derive(Debug)]
pub(super) struct Table<I, T> {
    places: Vec<T>,
    index: PhantomData<fn(I)>,
}

impl<I, T> Default for Table<I, T> {
    fn default() -> Self {
        Table { places: Vec::new(), index: PhantomData }
    }
}

impl<I: From<usize> + Into<usize> + Copy, T> Table<I, T> {
    pub(super) fn push(&mut self, entry: T) -> I {
        self.places.push(entry);
        I::from(self.places.len() - 1)
    }

    /// Puts an entry in the place of another.
    pub(super) fn replace(&mut self, ix: I, entry: T) {
        if let Some(place) = self.places.get_mut(ix.into()) {
            *place = entry;
        }
    }

    pub(super) fn clear(&mut self) {
        self.places.clear();
    }

    pub(super) fn get(&self, ix: I) -> Option<&T> {
        self.places.get(ix.into())
    }

    pub(super) fn get_mut(&mut self, ix: I) -> Option<&mut T> {
        self.places.get_mut(ix.into())
    }

    /// Every index, in order. The iterator does not borrow the table.
    pub(super) fn indices(&self) -> impl DoubleEndedIterator<Item = I> + use<I, T> {
        (0..self.places.len()).map(I::from)
    }

    /// Every entry with its index, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = (I, &T)> {
        self.places.iter().enumerate().map(|(number, entry)| (I::from(number), entry))
    }

    /// The index of the first entry that `is_wanted` accepts.
    pub(super) fn find(&self, is_wanted: impl FnMut(&T) -> bool) -> Option<I> {
        self.places.iter().position(is_wanted).map(I::from)
    }
}

impl<I, T> Deref for Table<I, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.places
    }
}

impl<I, T> DerefMut for Table<I, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.places
    }
}

impl<I: From<usize> + Into<usize> + Copy, T> Index<I> for Table<I, T> {
    type Output = T;

    fn index(&self, ix: I) -> &T {
        &self.places[ix.into()]
    }
}

impl<I: From<usize> + Into<usize> + Copy, T> IndexMut<I> for Table<I, T> {
    fn index_mut(&mut self, ix: I) -> &mut T {
        &mut self.places[ix.into()]
    }
}

impl<'a, I, T> IntoIterator for &'a Table<I, T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.places.iter()
    }
}

impl<'a, I, T> IntoIterator for &'a mut Table<I, T> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.places.iter_mut()
    }
}
