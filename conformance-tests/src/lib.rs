//! Checks that a store of build steps keeps the `StepsStore` contract.
