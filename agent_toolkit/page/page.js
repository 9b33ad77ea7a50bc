// Run by gr.HTML: `element` is the component, `trigger` sends an event to the server.
const parts = {
  // a file is read here and sent in the event: no route takes files, and no path comes back
  drop() {
    const zone = element.querySelector(".drop");
    const input = zone.querySelector("input");
    const open = (file) => {
      if (!file) return;
      if (file.size > Number(zone.dataset.most)) {
        trigger("upload", { size: file.size });
        return;
      }
      const reader = new FileReader();
      reader.onload = () => trigger("upload", { content: reader.result.split(",")[1] || "" });
      reader.onerror = () => trigger("upload", { content: "" });
      reader.readAsDataURL(file);
    };
    input.addEventListener("change", () => { open(input.files[0]); input.value = ""; });
    for (const name of ["dragenter", "dragover"])
      zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("over"); });
    for (const name of ["dragleave", "drop"])
      zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.remove("over"); });
    zone.addEventListener("drop", (event) => open(event.dataTransfer.files[0]));
  },

  gallery() {
    element.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-number]");
      if (button) trigger("select", { number: Number(button.dataset.number) });
    });
  },

  // the cross is set here, so that the pictures need not come again
  pictures() {
    element.addEventListener("click", (event) => {
      const picture = event.target.closest(".picture[data-model]");
      if (!picture) return;
      const area = picture.getBoundingClientRect();
      const x = (event.clientX - area.left) / area.width;
      const y = (event.clientY - area.top) / area.height;
      for (const cross of element.querySelectorAll(".cross")) {
        cross.hidden = false;
        cross.style.left = `${100 * x}%`;
        cross.style.top = `${100 * y}%`;
      }
      trigger("select", { model: Number(picture.dataset.model), x, y });
    });
  },

  // a value is a file: its neutral name, its type, its content
  saver() {
    watch("value", () => {
      if (!props.value) return;
      const file = JSON.parse(props.value);
      const bytes = Uint8Array.from(atob(file.content), (each) => each.charCodeAt(0));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([bytes], { type: file.type }));
      link.download = file.name;
      link.click();
      URL.revokeObjectURL(link.href);
    });
  },
};
