"""Where images and labels come from: embedded, published files, folders of images, a user's own tensors."""
