"""Makes nodules that no scan has shown, and puts them into lungs: augmentation where annotated nodules are few."""
