// Saves a text as a file: dispatch a "save" event with {name, type, text} on the document.
document.addEventListener("save", ({ detail: { name, type, text } }) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // large files take a moment
});
